"""Regular expressions of JSON schemas, in the form in which the converter to GBNF means what they mean."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from specee.app.engine.schema_error import MAX_COUNT, SchemaError

MAX_BEGINNINGS = 32

_SIGN = re.compile(
    r"(?P<escaped>\\[\[\](){}|*+?.^$/-])"
    r"|(?P<class>\[(?!\^)(?:[^\]\[\\]|\\[\[\]])+\])"
    r"|(?P<count>\{\d{1,4}(?:,\d{0,4})?\})"
    r"|(?P<group>\((?!\?)|[)|*+?])"
    r"|(?P<character>[^\x00-\x1f\\\[\](){}|*+?.^$\"])"
)


def pattern_for_gbnf(pattern: str) -> str:
    """The same, and all texts that it allows are JSON as they stand. Raises SchemaError."""
    if not (pattern.startswith("^") and pattern.endswith("$")):
        raise SchemaError("it must begin with ^ and end with $")
    try:
        re.compile(pattern)  # balanced, and nothing repeated that is not there
    except (re.error, OverflowError) as error:
        raise SchemaError(f"it is no regular expression: {error}") from error
    inner, at, converted = pattern[1:-1], 0, ""
    beginnings = _Beginnings()
    while at < len(inner):
        sign = _SIGN.match(inner, at)
        if sign is None or (sign["class"] and not _is_text(sign["class"])):
            what = sign[0] if sign else inner[at : at + 2]
            raise SchemaError(f"{what!r} is not supported; use characters, classes such as [a-z], groups, |*+?{{}}")
        counts = [int(count) for count in re.findall(r"\d+", sign["count"] or "")]
        if counts and max(counts) > MAX_COUNT:
            raise SchemaError(f"{sign[0]}: {MAX_COUNT} times is the most")
        beginnings.add(sign[0], is_count=sign["count"] is not None)
        escaped = sign["escaped"]
        converted += (
            {"\\.": "[.]"}.get(escaped, escaped[1] if escaped[1] in "^$/-" else escaped) if escaped else sign[0]
        )
        at = sign.end()
    beginnings.end()
    return f"^({converted})$"


@dataclass
class _Part:
    """A part of an expression. `first`: in how many ways it may begin; `after`: in how many it may go on at its end."""

    may_be_empty: bool = True
    first: int = 0
    after: int = 0


class _Beginnings:
    """Counts by how many signs an expression may go on at each place. Many of them, or parts that may be empty and are
    repeated, take llama.cpp without end."""

    def __init__(self) -> None:
        self._groups: list[list[_Part]] = [[_Part()]]  # the alternatives of each that is open
        self._last: _Part | None = None  # to which a count may belong
        self._is_repeated = False

    def add(self, sign: str, *, is_count: bool) -> None:
        if is_count or sign in ("*", "+", "?"):
            self._repeat(sign)
            return
        self._join()
        if sign == "(":
            self._groups.append([_Part()])
        elif sign == "|":
            self._groups[-1].append(_Part())
        elif sign == ")":
            parts = self._groups.pop()
            first, after = sum(part.first for part in parts), max(part.after for part in parts)
            self._last = _Part(any(part.may_be_empty for part in parts), _bounded(first), after)
        else:
            self._last = _Part(False, 1, 0)

    def _join(self) -> None:
        """No count follows the last part."""
        part, whole = self._last, self._groups[-1][-1]
        self._last, self._is_repeated = None, False
        if part is None:
            return
        goes_on = _bounded(whole.after + part.first)
        if whole.may_be_empty:
            whole.first = _bounded(whole.first + part.first)
        whole.may_be_empty &= part.may_be_empty
        whole.after = _bounded(goes_on + part.after) if part.may_be_empty else part.after

    def end(self) -> None:
        """No more signs."""
        self._join()
        _bounded(sum(part.first for part in self._groups[0]))

    def _repeat(self, count: str) -> None:
        if self._last is None or self._is_repeated:
            raise SchemaError(f"{count!r} after nothing, or what is repeated already, is not supported")
        least, most = _BOUNDS.get(count) or _bounds(count)
        if most > 1:
            if self._last.may_be_empty:
                raise SchemaError(f"{count!r} repeats what may be empty; let it have a character at least")
            self._last.after = _bounded(self._last.after + self._last.first)
        self._last.may_be_empty |= least == 0
        self._is_repeated = True


def _bounded(n: int) -> int:
    if n > MAX_BEGINNINGS:
        raise SchemaError(f"it may go on in {n} ways at one place, {MAX_BEGINNINGS} are the most; use 'enum' for texts")
    return n


_BOUNDS: dict[str, tuple[float, float]] = {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}


def _bounds(count: str) -> tuple[float, float]:
    least, comma, most = count[1:-1].partition(",")
    return int(least), int(most) if most else math.inf if comma else int(least)


def _is_text(characters: str) -> bool:
    """Whether a class has only characters that stand for themselves in JSON."""
    accepted = re.compile(characters)
    return not any(accepted.match(chr(code)) for code in (*range(0x20), ord('"'), ord("\\")))
