"""An engine process as its client sees it: what it sends is handed to whoever waits for it."""

from __future__ import annotations

import queue
import threading
from typing import Any, Protocol

from specee.app.engine.protocol import Failed, OfRequest
from specee.app.options import LoadOptions

Inbox = queue.SimpleQueue  # of messages


class EngineLink(Protocol):
    """What a client needs of an engine process."""

    @property
    def alive(self) -> bool: ...

    def send(self, message: object) -> None:
        """May be called from any thread."""
        ...

    def receive(self) -> Any:
        """The next message; a fatal Failed when there will be no more."""
        ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


class Dispatcher:
    """Reads an engine's messages in a thread of its own. Everything else may be called from any thread."""

    def __init__(self, link: EngineLink, load: LoadOptions) -> None:
        self.general: Inbox[Any] = Inbox()
        """Messages that belong to no request."""
        self.link, self.load = link, load
        self._lock = threading.Lock()
        self._inboxes: dict[int, Inbox[Any]] = {}
        self._failure: Failed | None = None
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can answer."""
        return self._failure is None and self.link.alive

    def send(self, message: object) -> None:
        self.link.send(message)

    def expect(self, request: int) -> Inbox[Any]:
        """Where the messages of a request will come; after the engine's death the failure, at once."""
        inbox: Inbox[Any] = Inbox()
        with self._lock:
            self._inboxes[request] = inbox
            if self._failure is not None:
                inbox.put(self._failure)
        return inbox

    def forget(self, request: int) -> None:
        """Nobody waits for this request's messages any more."""
        with self._lock:
            self._inboxes.pop(request, None)

    def kill(self) -> None:
        self.link.kill()

    def close(self) -> None:
        self.link.close()

    def _read(self) -> None:
        while self._failure is None:
            message = self.link.receive()
            with self._lock:
                if isinstance(message, OfRequest):
                    inbox = self._inboxes.get(message.request)
                    if inbox is not None:
                        inbox.put(message.message)
                    continue
                if isinstance(message, Failed) and message.fatal:
                    self._failure = message
                    for inbox in self._inboxes.values():
                        inbox.put(message)
                self.general.put(message)
