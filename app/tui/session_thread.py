"""The thread that works with the session, and the events that it hands to the screen.

Events are buffered, and the screen reads the buffer when it draws.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from textual.app import App
from textual.message import Message
from textual.worker import get_current_worker

from specee.app import error_log
from specee.app.engine.client import Event
from specee.app.engine.protocol import ChatEvent
from specee.app.errors import AppError

Job = Callable[[], Iterator[Event]]


class EventsReady(Message):
    """The buffer holds an event that should be shown at once. One such message in the queue is enough."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, EventsReady)


class JobEnded(Message):
    """The session is free again, after an error or not."""

    def __init__(self, error: AppError | None = None) -> None:
        super().__init__()
        self.error = error


class EventBuffer:
    """Events that the screen has not read yet. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)

    def drain(self) -> list[Event]:
        with self._lock:
            events, self._events = self._events, []
        return events


class SessionThread:
    """Runs jobs that use the session in a thread, one at a time."""

    def __init__(self, app: App[int], logs: Path) -> None:
        self._app, self._logs = app, logs
        self.buffer = EventBuffer()
        self.busy = False

    def start(self, job: Job) -> None:
        """Starts a job; JobEnded is posted when it is over."""
        self.busy = True
        self._app.run_worker(lambda: self._run(job), thread=True, exit_on_error=False)

    def show(self, event: Event) -> None:
        """Hands over an event that should be shown at once. From any thread."""
        self.buffer.put(event)
        self._app.post_message(EventsReady())

    def _run(self, job: Job) -> None:
        error: AppError | None = None
        worker = get_current_worker()
        tokens = False
        try:
            for event in job():
                # the first token is shown at once, the others at the next tick: a message each would cost more than
                # showing them
                if tokens and isinstance(event, ChatEvent):
                    self.buffer.put(event)
                else:
                    self.show(event)
                tokens = isinstance(event, ChatEvent)
                if worker.is_cancelled:
                    return
        except Exception as caught:  # whatever it is, the user gets a line and the screen stays
            error = error_log.told(caught, self._logs)
        self._app.post_message(JobEnded(error))
