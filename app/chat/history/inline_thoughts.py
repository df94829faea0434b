"""Thoughts that earlier versions kept within answers: `<think> ... </think>` and what follows."""

from __future__ import annotations

import re
import sqlite3

_TAGS = "think|thinking|thought|reasoning|seed:think|mm:think"
_WHOLE = re.compile(rf"\s*<({_TAGS})>(?P<thought>.*?)(?:</\1>\s*|\Z)", re.DOTALL)
"""One that was cut has no end."""
_BEGUN_IN_PROMPT = re.compile(rf"(?P<thought>(?:(?!</?(?:{_TAGS})>).)*)\n</({_TAGS})>\s*\n", re.DOTALL)
"""The prompt had its beginning; an answer that only speaks of such a tag has it in its text."""


def register(connection: sqlite3.Connection) -> None:
    """The functions that the migration calls, each with the content of an answer."""
    for name, n_arguments, function in (
        ("inline_thought", 1, lambda content: split(content)[0]),
        ("answer_alone", 1, lambda content: split(content)[1]),
        ("depths_alone", 2, _depths),
    ):
        connection.create_function(name, n_arguments, function, deterministic=True)


def split(content: str | bytes | None) -> tuple[str, str]:
    """The thought, "" if there is none, and the rest."""
    text = _text(content)
    found = _found(text)
    return ("", text) if found is None else (found["thought"].strip(), text[found.end() :])


def _found(text: str) -> re.Match[str] | None:
    return _WHOLE.match(text) or _BEGUN_IN_PROMPT.match(text)


def _text(content: str | bytes | None) -> str:
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else content or ""


def _depths(content: str | bytes | None, depths: bytes | None) -> bytes | None:
    """The tokens' layers and characters, without the characters that are no part of thought or answer any more."""
    text = _text(content)
    found = _found(text)
    if found is None or not isinstance(depths, bytes):
        return depths
    thought = found["thought"]
    start = found.start("thought") + len(thought) - len(thought.lstrip())
    kept = ((start, start + len(thought.strip())), (found.end(), len(text)))
    changed, at = bytearray(depths), 0
    for i in range(1, len(depths), 2):
        begin, at = at, at + depths[i]
        changed[i] = sum(max(0, min(at, last) - max(begin, first)) for first, last in kept)
    return bytes(changed)
