"""Answers from an engine process: starts it, loads the model, asks, cancels, and notices when it dies or is silent."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from specee.app import paths
from specee.app.engine.protocol import (
    Cancel,
    ChatEvent,
    Done,
    Failed,
    Generate,
    Load,
    Message,
    ModelInfo,
    ModelLoaded,
    Progress,
    PromptProgress,
    Started,
    TokenEvents,
)
from specee.app.engine.terminal_guard import SavedTerminal
from specee.app.errors import AppError
from specee.app.options import ChatOptions, LoadOptions

SILENCE_SECONDS = 30.0  # a chunk of a prompt can take seconds with a large model; half a minute of nothing is reported


@dataclass(frozen=True)
class Silence:
    """The engine has sent nothing for so many seconds: it computes for long, or hangs."""

    seconds: float


Event = Progress | PromptProgress | Started | ChatEvent | Done | Silence


class EngineLostError(AppError):
    """The engine process is gone; the next request starts a new one."""


class EngineLink(Protocol):
    """What a client needs of an engine process."""

    @property
    def alive(self) -> bool: ...

    def send(self, message: object) -> None: ...

    def receive(self, timeout: float | None = None) -> Any:
        """Raises queue.Empty on timeout."""
        ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


Start = Callable[[LoadOptions], EngineLink]


def start_process(load: LoadOptions, terminal: SavedTerminal | None = None) -> EngineLink:
    """The real engine process. `terminal`: what it gives back if this process is killed."""
    from specee.app.engine.process import EngineProcess

    return EngineProcess(paths.find(load.data_dir).logs, terminal=terminal)


class EngineClient:
    """One model in one process. Not thread-safe, except `cancel` and `kill`, which may come from anywhere."""

    def __init__(self, load: LoadOptions, start: Start = start_process) -> None:
        self.info: ModelInfo | None = None
        self.silence_seconds = SILENCE_SECONDS
        self._load, self._start = load, start
        self._engine: EngineLink | None = None
        self._request = 0
        self._running: int | None = None

    @property
    def answering(self) -> bool:
        """Whether an answer is under way."""
        return self._running is not None

    def open(self) -> Iterator[Progress | Silence]:
        """Starts the engine and loads the model, unless it runs already. Raises AppError."""
        if self._engine is not None and self._engine.alive and self.info is not None:
            return
        self.close()
        engine = self._engine = self._start(self._load)
        engine.send(Load(self._load))
        for message in self._messages(engine):
            if isinstance(message, ModelLoaded):
                self.info = message.info
                return
            if isinstance(message, (Progress, Silence)):
                yield message

    def reload(self, load: LoadOptions) -> None:
        """The next request has another model or window."""
        self.close()
        self._load = load

    def generate(
        self, messages: tuple[Message, ...], options: ChatOptions, *, continue_answer: bool = False
    ) -> Generator[Event, None, None]:
        """Answers a chat; Done comes last. Raises AppError, EngineLostError when the engine died meanwhile."""
        yield from self.open()
        assert self._engine is not None
        self._request += 1
        self._running = self._request
        self._engine.send(Generate(self._request, messages, options, continue_answer))
        try:
            for message in self._messages(self._engine):
                if isinstance(message, TokenEvents):
                    yield from message.events
                    continue
                if isinstance(message, Done):
                    self._running = None
                yield message
                if isinstance(message, Done):
                    return
        finally:
            if self._running is not None:  # the caller stopped listening
                self._abandon(self._running)

    def cancel(self) -> None:
        """Stops the answer under way, which then ends with Done (stop_reason "cancelled")."""
        running, engine = self._running, self._engine
        if running is not None and engine is not None:
            engine.send(Cancel(running))

    def kill(self) -> None:
        """Ends an engine that hangs: whoever waits for it gets an EngineLostError."""
        engine = self._engine
        if engine is not None:
            engine.kill()

    def close(self) -> None:
        """Ends the engine process in good order."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self.info = None, None

    def _messages(self, engine: EngineLink) -> Iterator[Any]:
        waited = 0.0
        while True:
            try:
                message = engine.receive(self.silence_seconds)
            except queue.Empty:
                waited += self.silence_seconds
                yield Silence(waited)
                continue
            waited = 0.0
            if isinstance(message, Failed):
                raise self._failure(message)
            yield message

    def _abandon(self, request: int) -> None:
        """Leave no message of this request behind; an engine that does not stop is ended."""
        assert self._engine is not None
        self._running = None
        self._engine.send(Cancel(request))
        try:
            while not isinstance(self._engine.receive(self.silence_seconds), (Done, Failed)):
                pass
        except queue.Empty:
            self._engine.kill()
            self.close()

    def _failure(self, message: Failed) -> AppError:
        lost = message.fatal and self._running is not None
        self._running = None
        if message.fatal:
            self.close()
        kind = EngineLostError if lost else AppError
        return kind(message.title, message.message, message.exit_code)
