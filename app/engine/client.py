"""Answers from an engine process: starts it, loads the model, asks, cancels, and notices when it dies or is silent."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from specee.app import paths
from specee.app.engine.asked import Asked
from specee.app.engine.link import Dispatcher, EngineLink, Inbox
from specee.app.engine.protocol import (
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

    `goes_on`: without the device that failed, as the user allows it.
    """

    goes_on = False


class NoEngineError(AppError):
    """No engine could be started, or it could not load the model; the next request tries again."""


Start = Callable[[LoadOptions], EngineLink]


def start_process(load: LoadOptions, terminal: SavedTerminal | None = None) -> EngineLink:
    """The real engine process. `terminal`: what it gives back if this process is killed."""
    from specee.app.engine.process import EngineProcess

    return EngineProcess(paths.find(load.data_dir).logs, terminal=terminal)


ON_CPU = "the CPU computes alone now"


class EngineClient:
    """One model in one process. May be used from several threads at once."""

    def __init__(self, load: LoadOptions, start: Start = start_process) -> None:
        self.info: ModelInfo | None = None
        self.silence_seconds = SILENCE_SECONDS
        self.load = load
        """What the next request has."""
        self._loaded: LoadOptions | None = None  # the last that could be
        self._has_left_out = False
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
        self.load, self._has_left_out = load, False

    def leave_out(self, worker: str | None) -> None:
        """The next request is computed without this worker, or without any device where there is no other worker."""
        self.reload(self.load.without(worker))
        self._has_left_out = True

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
            while True:
                try:
                    return (yield from self._load())
                except (NoEngineError, EngineLostError) as error:
                    if not self._leaves_out(error, self.load):
                        if self._loaded is not None:
                            self.load = self._loaded
                        raise
                    yield self._without(error)
        finally:
            self._opening.release()

    def _load(self) -> Generator[Notice | Progress | Silence, None, Dispatcher]:
        load = self.load
        engine = self._engine = Dispatcher(self._started(load), load)
        engine.send(Load(load))
        for message in self._messages(engine.general):
            if isinstance(message, Failed):
                # a process that is there says why it cannot load the model
                kind = NoEngineError if engine.link.alive else EngineLostError
                self._drop(engine)
                raise message.as_error(kind)
            if isinstance(message, (Notice, Progress, Silence)):
                yield message
            if isinstance(message, ModelLoaded):
                self.info, self._loaded = message.info, load
                break
        return engine

    def _leaves_out(self, error: AppError, load: LoadOptions) -> bool:
        """Leaves out the device that this error of an engine with these options is of, if the user allows that; whether
        it does, or another request has done so."""
        if not (error.of_device and load.cpu_fallback and load.has_devices):
            return False
        if self.load == load:
            self.load, self._has_left_out = load.without(error.worker), True
        return True

    def _without(self, error: AppError) -> Notice:
        """Says who computes after it."""
        left = f"it goes on with {self.load.rpc}" if self.load.rpc is not None else ON_CPU
        return Notice(f"{error.line}; {left}")

    def _started(self, load: LoadOptions) -> EngineLink:
        try:
            return self._start(load)
        except AppError as error:
            raise NoEngineError(error.title, error.message, error.exit_code) from error

    def _answer(self, asked: Asked) -> Generator[Event, None, None]:
        before, n_repeated = self._ended_engines, 0
        while True:
            try:
                yield from self._put(asked)
                return
            except EngineLostError as error:
                goes_on = asked.engine is not None and self._leaves_out(error, asked.engine.load)
                is_wanted = self._ended_engines != before
                if goes_on and not is_wanted and asked.can_go_on:
                    yield from asked.go_on()
                    yield self._without(error)
                elif goes_on:
                    why = f"{error.message}; the next answer is computed without it"
                    lost = EngineLostError(error.title, why, error.exit_code)
                    lost.goes_on = True
                    raise lost from error
                elif is_wanted or n_repeated or not asked.may_be_repeated:
                    raise
                n_repeated += 1

    def _put(self, asked: Asked) -> Generator[Event, None, None]:
        engine = asked.engine = yield from self._connect()
        if self.info is not None and self._has_left_out:
            asked.fit(self.info)
        inbox = engine.expect(asked.request.request)
        self._running.add(asked)
        ended = False
        try:
            engine.send(asked.request)
            for message in self._messages(inbox):
                if not isinstance(message, (Silence, Failed)):
                    asked.may_be_repeated = False
                ended = isinstance(message, (Done, Failed))
                if ended:
                    self._running.remove(asked)
                if isinstance(message, Failed):
                    raise self._failure(engine, message)
                yield from asked.passed_on(message)
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
        return message.as_error(EngineLostError if message.fatal else AppError)

    def _drop(self, engine: Dispatcher | None) -> None:
        """Another engine serves the next request, unless one does already."""
        with self._dropping:
            if self._engine is not engine:
                return
            self._engine, self.info = None, None
        if engine is not None:
            engine.close()
