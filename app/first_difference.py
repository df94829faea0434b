"""Where two answers part."""

from __future__ import annotations

from collections.abc import Sequence


def first_difference(a: Sequence[object], b: Sequence[object]) -> int | None:
    """Index of the first token that differs or that only one of them has; None when they are equal."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return None if len(a) == len(b) else min(len(a), len(b))
