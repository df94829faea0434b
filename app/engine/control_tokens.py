"""The names of control tokens in what people, files and programs write: they stay text.

Only the chat template's own parts may have control tokens. What it is given has a character of its own in place of each
such name; in what it made, these are names again, to be made tokens as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from specee.app.engine.protocol import Message

_FIRST, _LAST = 0x100000, 0x10FFFD  # a private use area

Part = tuple[str, bool]
"""A text, and whether it is a name that stands for itself."""


class Names:
    """Those that occur in a chat, each with a character that does not."""

    def __init__(self, names: Sequence[str], messages: Sequence[Message], tools: str | None) -> None:
        """`names`: of all control tokens of the model."""
        texts = [tools or "", *(text for m in messages for text in (m.content, m.tool_calls or ""))]
        found = sorted((name for name in names if any(name in text for text in texts)), key=len, reverse=True)
        taken = {ord(char) for text in texts for char in text if ord(char) >= _FIRST} if found else set()
        free = (code for code in range(_FIRST, _LAST + 1) if code not in taken)
        self._mark_of = {name: chr(next(free)) for name in found}
        self._name_of = {mark: name for name, mark in self._mark_of.items()}
        # templates may write texts as JSON, with or without escapes
        self._name_of |= {json.dumps(mark)[1:-1]: json.dumps(name)[1:-1] for name, mark in self._mark_of.items()}

    def hide(self, message: Message) -> Message:
        """The message as the template sees it."""
        calls = message.tool_calls
        hidden = replace(message, content=self._hidden(message.content))
        return hidden if calls is None else replace(hidden, tool_calls=self._hidden(calls))

    def hide_in_tools(self, tools: str | None) -> str | None:
        return None if tools is None else self._hidden(tools)

    def _hidden(self, text: str) -> str:
        for name, mark in self._mark_of.items():
            text = text.replace(name, mark)
        return text

    def parts(self, text: str) -> list[Part]:
        """What the template made."""
        return list(self._parts(text)) if self._name_of else [(text, False)]

    def _parts(self, text: str) -> Iterator[Part]:
        for i, part in enumerate(re.split(f"({'|'.join(map(re.escape, self._name_of))})", text)):
            if part:
                yield (self._name_of[part], True) if i % 2 else (part, False)


def text_of(parts: Sequence[Part]) -> str:
    return "".join(text for text, _ in parts)


def after(parts: Sequence[Part], n: int) -> list[Part]:
    """Without the first n characters."""
    rest = []
    for text, is_name in parts:
        if n < len(text):
            rest.append((text[n:], is_name))
        n = max(0, n - len(text))
    return rest
