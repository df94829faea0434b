"""From the session's thread to the screen: events are buffered, and one message in the queue is enough for all."""

from __future__ import annotations

import threading

from textual.message import Message

from specee.app.engine_client import Event
from specee.app.errors import AppError


class EventsReady(Message):
    """There is something in the buffer. One in the queue is enough, however many tokens come."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, EventsReady)


class Ended(Message):
    """The session is free again, after an error or not."""

    def __init__(self, error: AppError | None = None) -> None:
        super().__init__()
        self.error = error


class Buffer:
    """Events on their way."""

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
