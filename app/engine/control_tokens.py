"""The names of control tokens in what people, files and programs write: they stay text.

Only the chat template's own parts may have control tokens. What it is given has a character of its own in place of each
such name; in what it made, these are names again, to be made tokens as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from specee.app.engine.protocol import Message

_FIRST, _LAST = 0x100000, 0x10FFFD  # a private use area

Part = tuple[str, bool]
"""A text, and whether it is a name that stands for itself."""


class Names:
    """Those that occur in a chat, each with a character that does not."""

    def __init__(
        self, names: Sequence[str], messages: Sequence[Message], tools: str | None, *, ends: bool = False
    ) -> None:
        """`names`: of all control tokens of the model; `ends`: also signs that these begin or end with are hidden."""
        self._all = names
        if ends:
            names = [*names, *_ends(names)]
        json_texts = [_one_form(text) for text in (tools, *(m.tool_calls for m in messages)) if text is not None]
        given = (t for m in messages for t in (m.content, m.name, m.tool_call_id, m.thought))
        texts = [*filter(None, given), *json_texts]
        found = sorted(
            (name for name in names if any(name in text or _in_json(name) in text for text in texts)),
            key=len,
            reverse=True,
        )
        taken = {ord(char) for text in texts for char in text if ord(char) >= _FIRST} if found else set()
        free = (code for code in range(_FIRST, _LAST + 1) if code not in taken)
        self._mark_of = {name: chr(next(free)) for name in found}
        self._name_of = {mark: name for name, mark in self._mark_of.items()}
        # templates may write texts as JSON, with or without escapes
        self._name_of |= {json.dumps(mark)[1:-1]: json.dumps(name)[1:-1] for name, mark in self._mark_of.items()}

    def in_parts(self, messages: Sequence[Message]) -> bool:
        """Whether the messages have a sign that a name begins or ends with, so that a template which leaves out a part
        of a text, joins two, or writes it otherwise could make a name."""
        ends = _ends(self._all)
        return any(end in t for m in messages for t in (m.content, m.name, m.thought) if t for end in ends)

    def count(self, text: str) -> int:
        """Names in what the template made, besides those that are hidden."""
        return sum(map(text.count, self._all))

    def hide(self, message: Message) -> Message:
        """The message as the template sees it."""
        calls = message.tool_calls
        hidden = replace(
            message,
            content=self._hidden(message.content),
            name=message.name and self._hidden(message.name),
            tool_call_id=message.tool_call_id and self._hidden(message.tool_call_id),
            thought=message.thought and self._hidden(message.thought),
        )
        return hidden if calls is None else replace(hidden, tool_calls=self._hidden_in_json(calls))

    def hide_in_tools(self, tools: str | None) -> str | None:
        return None if tools is None else self._hidden_in_json(tools)

    def _hidden_in_json(self, text: str) -> str:
        if not self._mark_of:
            return text
        text = _one_form(text)
        for name, mark in self._mark_of.items():
            if len(name) > 1:  # a single sign may be JSON's own
                text = text.replace(_in_json(name), mark)
        return text

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


def _ends(names: Sequence[str]) -> set[str]:
    found = {end for name in names if len(name) > 1 for end in (name[0], name[-1])}
    return {end for end in found if not end.isalnum() and not end.isspace()}


def _one_form(text: str) -> str:
    """JSON without needless escapes, which hide names."""
    return json.dumps(_without_escapes(json.loads(text)), ensure_ascii=False)


def _without_escapes(value: Any) -> Any:
    """The arguments of a call are JSON in a string."""
    if isinstance(value, list):
        return [_without_escapes(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _without_escapes(each) for key, each in value.items()}
    if isinstance(arguments := found.get("arguments"), str):
        with suppress(ValueError):
            found["arguments"] = json.dumps(json.loads(arguments), ensure_ascii=False)
    return found


def _in_json(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


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
