"""Regular expressions of JSON schemas, in the form in which the converter to GBNF means what they mean."""

from __future__ import annotations

import math
import re

from specee.app.engine.schema_error import MAX_COUNT, SchemaError

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
    emptiness = _Emptiness()
    while at < len(inner):
        sign = _SIGN.match(inner, at)
        if sign is None or (sign["class"] and not _is_text(sign["class"])):
            what = sign[0] if sign else inner[at : at + 2]
            raise SchemaError(f"{what!r} is not supported; use characters, classes such as [a-z], groups, |*+?{{}}")
        counts = [int(count) for count in re.findall(r"\d+", sign["count"] or "")]
        if counts and max(counts) > MAX_COUNT:
            raise SchemaError(f"{sign[0]}: {MAX_COUNT} times is the most")
        emptiness.add(sign[0], is_count=sign["count"] is not None)
        escaped = sign["escaped"]
        converted += (
            {"\\.": "[.]"}.get(escaped, escaped[1] if escaped[1] in "^$/-" else escaped) if escaped else sign[0]
        )
        at = sign.end()
    return f"^({converted})$"


class _Emptiness:
    """Follows which parts of an expression may be empty: to repeat one of these has no end, and no rule in GBNF."""

    def __init__(self) -> None:
        self._groups = [(True, False)]  # may be empty: this alternative as far as it came, one before
        self._before = self._groups[-1]  # without what a count would repeat
        self._last: bool | None = None  # what a count would repeat; None: nothing, or what is repeated already

    def add(self, sign: str, *, is_count: bool) -> None:
        if is_count or sign in ("*", "+", "?"):
            self._repeat(sign)
        elif sign == "(":
            self._groups.append((True, False))
            self._last = None
        elif sign == "|":
            empty, before = self._groups.pop()
            self._groups.append((True, before or empty))
            self._last = None
        elif sign == ")":
            self._last = any(self._groups.pop())
            self._join(self._last)
        else:
            self._last = False
            self._join(False)

    def _join(self, may_be_empty: bool) -> None:
        empty, before = self._before = self._groups[-1]
        self._groups[-1] = (empty and may_be_empty, before)

    def _repeat(self, count: str) -> None:
        if self._last is None:
            raise SchemaError(f"{count!r} after nothing, or what is repeated already, is not supported")
        least, most = _BOUNDS.get(count) or _bounds(count)
        if self._last and most > 1:
            raise SchemaError(f"{count!r} repeats what may be empty; let it have a character at least")
        if least == 0:
            self._groups[-1] = self._before
        self._last = None


_BOUNDS: dict[str, tuple[float, float]] = {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}


def _bounds(count: str) -> tuple[float, float]:
    least, comma, most = count[1:-1].partition(",")
    return int(least), int(most) if most else math.inf if comma else int(least)


def _is_text(characters: str) -> bool:
    """Whether a class has only characters that stand for themselves in JSON."""
    accepted = re.compile(characters)
    return not any(accepted.match(chr(code)) for code in (*range(0x20), ord('"'), ord("\\")))
