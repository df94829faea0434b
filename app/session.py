"""The headless core: a conversation with an engine process. The terminal screen and `-p` are its two front ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from specee.app import paths
from specee.app.errors import AppError
from specee.app.options import ChatOptions, LoadOptions
from specee.app.protocol import (
    Cancel,
    ChatEvent,
    Done,
    Failed,
    Generate,
    Load,
    Loaded,
    Message,
    ModelInfo,
    Progress,
    PromptProgress,
    Started,
    Stats,
    Tokens,
)

Event = Progress | PromptProgress | Started | ChatEvent | Done


class EngineLink(Protocol):
    """What the session needs of an engine process."""

    @property
    def alive(self) -> bool: ...

    def send(self, message: object) -> None: ...

    def receive(self, timeout: float | None = None) -> Any: ...

    def close(self) -> None: ...


def start_process(load: LoadOptions) -> EngineLink:
    """The real engine process."""
    from specee.app.engine_process import EngineProcess

    return EngineProcess(paths.find(load.data_dir).logs)


class Session:
    """A conversation. Not thread-safe, except `cancel`, which may come from anywhere."""

    def __init__(
        self,
        load: LoadOptions,
        system: str | None = None,
        start: Callable[[LoadOptions], EngineLink] = start_process,
    ) -> None:
        self.info: ModelInfo | None = None
        self._load, self._start = load, start
        self._engine: EngineLink | None = None
        self._system = [Message("system", system)] if system else []
        self._turns: list[Message] = []
        self._request = 0
        self._running: int | None = None

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation so far, without the system message."""
        return tuple(self._turns)

    @property
    def answering(self) -> bool:
        """Whether an answer is under way."""
        return self._running is not None

    def open(self) -> Iterator[Progress]:
        """Starts the engine and loads the model, unless it runs already. Raises AppError."""
        if self._engine is not None and self._engine.alive and self.info is not None:
            return
        self.close()
        engine = self._engine = self._start(self._load)
        engine.send(Load(self._load))
        while True:
            message = engine.receive()
            if isinstance(message, Loaded):
                self.info = message.info
                return
            if isinstance(message, Failed):
                raise self._failure(message)
            if isinstance(message, Progress):
                yield message

    def send(self, text: str, options: ChatOptions) -> Iterator[Event]:
        """Says something and yields what comes of it, Done last.

        Raises AppError; the conversation then is as it was before. After an engine crash the next call starts a new
        engine and goes on with the conversation.
        """
        yield from self.open()
        assert self._engine is not None
        self._request += 1
        said = Message("user", text)
        answer: list[str] = []
        self._running = self._request
        self._engine.send(Generate(self._request, (*self._system, *self._turns, said), options))
        try:
            for message in self._receive():
                if isinstance(message, ChatEvent) and message.state == "verified":
                    answer.append(message.text)
                if isinstance(message, Done) and answer:
                    self._turns += [said, Message("assistant", "".join(answer))]
                yield message
        finally:
            if self._running is not None:  # the caller stopped listening
                self._abandon(self._running)

    def cancel(self) -> None:
        """Stops the answer under way, which then ends with Done (stop_reason "cancelled")."""
        running, engine = self._running, self._engine
        if running is not None and engine is not None:
            engine.send(Cancel(running))

    def new(self) -> None:
        """Begins a new conversation."""
        self._turns.clear()

    def close(self) -> None:
        """Ends the engine process."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self.info = None, None

    def _receive(self) -> Iterator[Event]:
        assert self._engine is not None
        while True:
            message = self._engine.receive()
            if isinstance(message, (Done, Failed)):
                self._running = None
            if isinstance(message, Tokens):
                yield from message.events
            elif isinstance(message, Failed):
                raise self._failure(message)
            else:
                yield message
            if isinstance(message, Done):
                return

    def _abandon(self, request: int) -> None:
        """Leave no message of this request behind."""
        assert self._engine is not None
        self._running = None
        self._engine.send(Cancel(request))
        while not isinstance(self._engine.receive(), (Done, Failed)):
            pass

    def _failure(self, message: Failed) -> AppError:
        if message.fatal:
            self.close()
        return AppError(message.title, message.message, message.exit_code)


def summary(stats: Stats) -> str:
    """The figures of one answer as one line."""
    skipped = "" if stats.mean_exit_layer >= stats.n_layers else " with exits"
    return (
        f"{stats.tokens} tokens, {stats.tokens_per_second:.1f} tokens/s{skipped}, first after {stats.ttft_s:.2f} s, "
        f"mean exit layer {stats.mean_exit_layer:.1f} of {stats.n_layers}, prompt {stats.prompt_tokens} tokens "
        f"({stats.reused} reused), policy {stats.policy} ({stats.policy_reason}), stopped: {stats.stop_reason}"
    )
