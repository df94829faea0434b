"""What a chat's template takes for now.

Many templates write the date, some the time, at the beginning of the prompt. Within a chat it stays what it was, or
everything would have to be read again at midnight, or each second.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime

from specee.app.engine.protocol import Message

KEPT = 256  # chats


class ChatClock:
    """Remembers when chats began; they are known by how they begin."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self._begun: OrderedDict[bytes, datetime] = OrderedDict()

    def time_of(self, messages: Sequence[Message]) -> datetime:
        """When the chat began: when its first question was asked, that day's first time."""
        key, is_first = _beginning(messages)
        now = self.now()
        begun = self._begun.pop(key, now)
        if is_first and begun.date() != now.date():
            begun = now
        self._begun[key] = begun
        if len(self._begun) > KEPT:
            self._begun.popitem(last=False)
        return begun


def _beginning(messages: Sequence[Message]) -> tuple[bytes, bool]:
    """All up to the first question, and whether no answer follows it."""
    first = next((i for i, message in enumerate(messages) if message.role == "user"), len(messages) - 1)
    head = hashlib.sha256()
    for message in messages[: first + 1]:
        head.update(f"{message.role}\0{len(message.content)}\0{message.content}".encode("utf-8", "surrogatepass"))
    return head.digest(), all(message.role != "assistant" for message in messages[first + 1 :])
