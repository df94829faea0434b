"""Answers from an engine process: starts it, loads the model, asks, cancels, and notices when it dies or is silent."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from specee.app import paths
from specee.app.engine.link import Dispatcher, EngineLink, Inbox
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
    Notice,
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


Event = Notice | Progress | PromptProgress | Started | ChatEvent | Done | Silence


class Asked:
    """A request, from its beginning to its end. `cancel` may come from any thread."""

    def __init__(self, request: Generate) -> None:
        self.request = request
        self.engine: Dispatcher | None = None  # once it was asked
        self.may_be_repeated = True
        """Until the engine takes it up, or somebody wants it to end: another engine can answer it as well."""
        self.has_tokens = False
        """Whether something of the answer has come."""

    def cancel(self) -> None:
        self.may_be_repeated = False
        if self.engine is not None:
            self.engine.send(Cancel(self.request.request))


class Answer(Iterator[Event]):
    """The events of an answer, which is asked for when the first one is wanted."""

    def __init__(self, asked: Asked, events: Generator[Event, None, None]) -> None:
        self._asked, self._events = asked, events

    def __next__(self) -> Event:
        return next(self._events)

    def cancel(self) -> None:
        """Stops it; it then ends with Done (stop_reason "cancelled")."""
        self._asked.cancel()

    def close(self) -> None:
        """Stops it, if it has not ended; nothing more comes. What is dropped is closed."""
        self._events.close()


class EngineLostError(AppError):
    """The engine process is gone; the next request starts a new one.

    `on_cpu`: without the device that failed, as the user allows it.
    """

    on_cpu = False


class NoEngineError(AppError):
    """No engine could be started, or it could not load the model; the next request tries again."""


Start = Callable[[LoadOptions], EngineLink]


def start_process(load: LoadOptions, terminal: SavedTerminal | None = None) -> EngineLink:
    """The real engine process. `terminal`: what it gives back if this process is killed."""
    from specee.app.engine.process import EngineProcess

    return EngineProcess(paths.find(load.data_dir).logs, terminal=terminal)


def _on_cpu(error: AppError) -> Notice:
    return Notice(f"{error.line}; the CPU computes alone now")


class EngineClient:
    """One model in one process. May be used from several threads at once."""

    def __init__(self, load: LoadOptions, start: Start = start_process) -> None:
        self.info: ModelInfo | None = None
        self.silence_seconds = SILENCE_SECONDS
        self.load = load
        """What the next request has."""
        self._loaded: LoadOptions | None = None  # the last that could be
        self._start = start
        self._engine: Dispatcher | None = None
        self._requests = itertools.count(1)
        self._told: set[Notice] = set()
        self._running: set[Asked] = set()
        self._opening, self._dropping = threading.Lock(), threading.Lock()
        self._ended_engines = 0
        """How many were ended because somebody wanted it: their requests are not put to another one."""

    @property
    def answering(self) -> bool:
        """Whether an answer is under way."""
        return bool(self._running)

    @property
    def is_open(self) -> bool:
        """Whether the model is loaded."""
        engine = self._engine
        return engine is not None and engine.alive and self.info is not None

    def open(self) -> Iterator[Notice | Progress | Silence]:
        """Starts the engine and loads the model, unless it runs already. Raises AppError."""
        yield from self._connect()

    def reload(self, load: LoadOptions) -> None:
        """The next request has another model or window; where that cannot be loaded, those after it the last one."""
        self.close()
        self.load = load

    def use_cpu(self) -> None:
        """The next request is computed by the CPU alone."""
        self.reload(self.load.on_cpu)

    def generate(
        self,
        messages: tuple[Message, ...],
        options: ChatOptions,
        *,
        continue_answer: bool = False,
        tools: str | None = None,
        is_comparison: bool = False,
    ) -> Answer:
        """Answers a chat (see Generate): its events, Done last.

        Iterating raises AppError, EngineLostError when the engine died. A request that the engine had not taken up when
        it died is put to the next one.
        """
        asked = Asked(Generate(next(self._requests), messages, options, continue_answer, tools, is_comparison))
        return Answer(asked, self._answer(asked))

    def cancel(self) -> None:
        """Stops all answers under way, which then end with Done (stop_reason "cancelled")."""
        for asked in list(self._running):
            asked.cancel()

    def kill(self) -> None:
        """Ends an engine that hangs: whoever waits for it gets an EngineLostError."""
        engine = self._engine
        if engine is not None:
            self._ended_engines += 1
            engine.kill()

    def close(self) -> None:
        """Ends the engine process in good order."""
        self._ended_engines += 1
        self._drop(self._engine)

    def _connect(self) -> Generator[Notice | Progress | Silence, None, Dispatcher]:
        """The engine with its model loaded; one thread loads it, others wait."""
        waited = 0.0
        while not self._opening.acquire(timeout=self.silence_seconds):
            waited += self.silence_seconds
            yield Silence(waited)
        try:
            engine = self._engine
            if engine is not None and self.is_open:
                return engine
            self._drop(engine)
            try:
                return (yield from self._load())
            except (NoEngineError, EngineLostError) as error:
                if not self._fall_back_to_cpu(error):
                    if self._loaded is not None:
                        self.load = self._loaded
                    raise
                yield _on_cpu(error)
                return (yield from self._load())
        finally:
            self._opening.release()

    def _load(self) -> Generator[Notice | Progress | Silence, None, Dispatcher]:
        load = self.load
        engine = self._engine = Dispatcher(self._started(load))
        engine.send(Load(load))
        for message in self._messages(engine.general):
            if isinstance(message, Failed):
                # a process that is there says why it cannot load the model
                kind = NoEngineError if engine.link.alive else EngineLostError
                self._drop(engine)
                raise kind(message.title, message.message, message.exit_code, of_device=message.of_device)
            if isinstance(message, (Notice, Progress, Silence)):
                yield message
            if isinstance(message, ModelLoaded):
                self.info, self._loaded = message.info, load
                break
        return engine

    def _fall_back_to_cpu(self, error: AppError) -> bool:
        """Lets the CPU go on alone after this error, if the user allows that; whether it does."""
        if not (error.of_device and self.load.cpu_fallback):
            return False
        self.load = self.load.on_cpu
        return True

    def _started(self, load: LoadOptions) -> EngineLink:
        try:
            return self._start(load)
        except AppError as error:
            raise NoEngineError(error.title, error.message, error.exit_code) from error

    def _answer(self, asked: Asked) -> Generator[Event, None, None]:
        before = self._ended_engines
        try:
            yield from self._put(asked)
        except EngineLostError as error:
            on_cpu = self._fall_back_to_cpu(error)
            if self._ended_engines != before or not (asked.may_be_repeated or (on_cpu and not asked.has_tokens)):
                if on_cpu:
                    why = f"{error.message}; the CPU goes on alone from the next answer on"
                    lost = EngineLostError(error.title, why, error.exit_code)
                    lost.on_cpu = True
                    raise lost from error
                raise
            if on_cpu:
                yield _on_cpu(error)
            yield from self._put(asked)

    def _put(self, asked: Asked) -> Generator[Event, None, None]:
        engine = asked.engine = yield from self._connect()
        inbox = engine.expect(asked.request.request)
        self._running.add(asked)
        ended = False
        try:
            engine.send(asked.request)
            for message in self._messages(inbox):
                if not isinstance(message, (Silence, Failed)):
                    asked.may_be_repeated = False
                if isinstance(message, TokenEvents):
                    asked.has_tokens = True
                    yield from message.events
                    continue
                ended = isinstance(message, (Done, Failed))
                if ended:
                    self._running.remove(asked)
                if isinstance(message, Failed):
                    raise self._failure(engine, message)
                yield message
                if ended:
                    return
        finally:
            engine.forget(asked.request.request)
            if not ended:  # the caller stopped listening
                self._running.remove(asked)
                asked.cancel()

    def _messages(self, inbox: Inbox[Any]) -> Iterator[Any]:
        waited = 0.0
        while True:
            try:
                message = inbox.get(timeout=self.silence_seconds)
            except queue.Empty:
                waited += self.silence_seconds
                yield Silence(waited)
                continue
            waited = 0.0
            if isinstance(message, Notice):
                if message in self._told:
                    continue
                self._told.add(message)
            yield message

    def _failure(self, engine: Dispatcher, message: Failed) -> AppError:
        if message.fatal:
            self._drop(engine)
        kind = EngineLostError if message.fatal else AppError
        return kind(message.title, message.message, message.exit_code, of_device=message.of_device)

    def _drop(self, engine: Dispatcher | None) -> None:
        """Another engine serves the next request, unless one does already."""
        with self._dropping:
            if self._engine is not engine:
                return
            self._engine, self.info = None, None
        if engine is not None:
            engine.close()
