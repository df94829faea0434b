"""JSON from clients, where it has one meaning."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from specee.app.settings import shown

MAX_VALUES = 40_000
"""Of a text: more would be slow to check, and nobody sends them."""
SHOWN_CHARACTERS = 100  # of a path
Path = tuple[Any, ...]


class JsonError(ValueError):
    """What the text has at `path` means nothing, or not one thing."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


class _Twice(str):
    """In the place of an object: the key that it has twice."""


def read(text: bytes | str) -> Any:
    """The value of a text. Raises JsonError."""
    try:
        from_json(text)  # strict about texts, and bounded in depth
    except ValueError as error:
        half = "half of a surrogate pair is no text; " if "hex escape" in str(error) else ""
        raise JsonError(f"it is not JSON: {half}{error}") from error
    value = json.loads(text, object_pairs_hook=_object)
    waiting: list[tuple[Path, Any]] = [((), value)]
    count = 0
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, _Twice):
            raise JsonError(f"the key {shown(str(part))} stands twice in one object", (*path, str(part)))
        if isinstance(part, float) and not math.isfinite(part):
            raise JsonError("a number must be finite, with a magnitude below 1.8e308", path)
        if isinstance(part, (dict, list)):
            count += len(part)
            if count > MAX_VALUES:
                raise JsonError(f"it has more than {MAX_VALUES} values")
            inner = part.items() if isinstance(part, dict) else enumerate(part)
            waiting.extend(((*path, key), one) for key, one in inner)
    return value


def in_javascript(path: Sequence[Any]) -> str:
    """messages[0].content"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _object(pairs: list[tuple[str, Any]]) -> Any:
    made, seen = dict(pairs), set[str]()
    if len(made) == len(pairs):
        return made
    return _Twice(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
