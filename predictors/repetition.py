"""Answers that go round in circles: small models do, and drafts and exits look better there than they are."""

from __future__ import annotations

from collections.abc import Sequence


def loop_start(tokens: Sequence[int], n: int = 12) -> int | None:
    """Index of the first token that completes an n-gram which was there before; None when nothing is repeated."""
    seen: set[tuple[int, ...]] = set()
    for end in range(n, len(tokens) + 1):
        gram = tuple(tokens[end - n : end])
        if gram in seen:
            return end - 1
        seen.add(gram)
    return None
