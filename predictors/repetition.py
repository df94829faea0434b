"""Loops in generated text."""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 12
"""Tokens; a text that repeats so many of its own has most often begun to loop."""


def loop_start(tokens: Sequence[int], n: int = NGRAM) -> int | None:
    """Index of the token that completes the first repeated n-gram; None when no n-gram is repeated."""
    seen: set[tuple[int, ...]] = set()
    for end in range(n, len(tokens) + 1):
        gram = tuple(tokens[end - n : end])
        if gram in seen:
            return end - 1
        seen.add(gram)
    return None
