"""Answers of the engine for an event loop: each is read in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress

from specee.app.engine.client import Answer, EngineClient, EngineLostError
from specee.app.engine.protocol import ChatEvent, Done, Notice, Started
from specee.app.errors import AppError, as_app_error
from specee.app.serve.errors import ApiError
from specee.app.serve.request import CompletionRequest

WAITING_LIMIT = 8  # requests that wait for a slot
LEFT_SECONDS = 1.0  # within which it is noticed that a client left whose request waits

Event = Started | ChatEvent | Done


class ClientLeftError(Exception):
    """Nobody waits for the answer any more."""


class Answers:
    """Asks one engine, which has its model loaded, and answers as many requests at once as it has slots."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        client.silence_seconds = LEFT_SECONDS
        assert client.info is not None, "the model is not loaded"
        self.info = client.info
        self.limit = self.info.n_slots + WAITING_LIMIT
        self.places = threading.Semaphore(self.limit)

    def ask(self, request: CompletionRequest) -> Feed:
        """Raises ApiError when too many are waiting."""
        if not self.places.acquire(blocking=False):
            raise ApiError(503, "busy", f"{self.limit} requests are waiting or being answered")

        def ask() -> Answer:
            return self.client.generate(request.messages, request.options, tools=request.tools.given)

        return Feed(ask, self.places, is_whole=not request.stream)


class Feed:
    """One answer: iterate over what is certain of it. Raises AppError, and ClientLeftError after `leave`.

    `is_whole`: all of it comes at its end, and is asked for once more when a device fails that can be left out.
    """

    def __init__(self, ask: Callable[[], Answer], places: threading.Semaphore, *, is_whole: bool) -> None:
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._left = threading.Event()
        threading.Thread(target=self._read, args=(ask, places, is_whole), daemon=True).start()

    def leave(self) -> None:
        """Nobody waits for the answer any more: the engine stops."""
        self._left.set()
        self._events.put_nowait(ClientLeftError())

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Done):
                return

    def _read(self, ask: Callable[[], Answer], places: threading.Semaphore, is_whole: bool) -> None:
        try:
            try:
                self._pass_on(ask(), is_whole)
            except EngineLostError as error:
                if not (is_whole and error.goes_on):
                    raise
                self._pass_on(ask(), is_whole)
        except BaseException as error:
            self._put(as_app_error(error))
        finally:
            places.release()

    def _pass_on(self, answer: Answer, is_whole: bool) -> None:
        waiting: list[Event] = []
        with closing(answer):  # the slot is free again, however this answer ends
            for event in answer:
                if self._left.is_set():
                    return
                if isinstance(event, Notice):
                    logging.getLogger(__name__).error("%s", event.text)
                match event:
                    case Started() | Done() | ChatEvent(state="verified"):
                        waiting.append(event)
                if not is_whole or isinstance(event, Done):
                    for one in waiting:
                        self._put(one)
                    waiting.clear()

    def _put(self, event: Event | AppError) -> None:
        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
