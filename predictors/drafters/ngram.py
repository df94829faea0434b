"""Look-up of what followed the last tokens earlier in the conversation (prompt and answers).

An n-gram maps to the list of tokens that followed it, oldest first, so that withdrawing is popping.
"""

from __future__ import annotations

from collections.abc import Sequence

from specee.predictors.drafters.base import DraftStats
from specee.predictors.types import Engine

_LOOK_BACK = 32  # continuations of one n-gram that are ranked: bounds the work for common n-grams


class NGram:
    """Longest contexts first; the continuations of one context by count, then by recency."""

    name = "ngram"

    def __init__(self, longest: int = 3, shortest: int = 1) -> None:
        self.stats = DraftStats()
        self._lengths = range(longest, shortest - 1, -1)
        self._tokens: list[int] = []
        self._followers: dict[tuple[int, ...], list[int]] = {}
        self._last: set[int] = set()

    def begin(self, history: Sequence[int]) -> None:
        self._tokens = []
        self._followers = {}
        self._last = set()
        for token in history:
            self._append(int(token))

    def draft(self, engine: Engine | None, pos: int, token: int, k: int) -> list[int]:
        """`token` must be the last accepted one; neither the engine nor the position is used."""
        found: list[int] = []
        for n in self._lengths:
            if len(found) >= k or n > len(self._tokens):
                continue
            followers = self._followers.get(tuple(self._tokens[-n:]))
            if followers:
                found += [word for word in _ranked(followers[-_LOOK_BACK:]) if word not in found]
        found = found[:k]
        self._last = set(found)
        self.stats.asked += 1
        self.stats.given += len(found)
        return found

    def accept(self, token: int) -> None:
        self.stats.hits += token in self._last
        self._last = set()
        self._append(token)

    def withdraw(self, n: int) -> None:
        for _ in range(n):
            self._tokens.pop()
            for key in self._contexts():
                followers = self._followers[key]
                followers.pop()
                if not followers:
                    del self._followers[key]
        self._last = set()

    def _append(self, token: int) -> None:
        for key in self._contexts():
            self._followers.setdefault(key, []).append(token)
        self._tokens.append(token)

    def _contexts(self) -> list[tuple[int, ...]]:
        return [tuple(self._tokens[-n:]) for n in self._lengths if n <= len(self._tokens)]


def _ranked(followers: list[int]) -> list[int]:
    """Distinct tokens: the most frequent first, of equals the most recent."""
    count: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, token in enumerate(followers):
        count[token] = count.get(token, 0) + 1
        last[token] = place
    return sorted(count, key=lambda token: (count[token], last[token]), reverse=True)
