"""Look-up of what followed the last tokens earlier in the conversation (prompt and answers).

An n-gram maps to the list of tokens that followed it, oldest first, so that rolling back is popping.
"""

from __future__ import annotations

from collections.abc import Sequence

from specee.predictors.drafters.base import Budget, DraftState, DraftTree, HitCounter

_MAX_FOLLOWERS = 32  # continuations of one n-gram that are ranked: bounds the time for common n-grams


class NGramDrafter(HitCounter):
    """Longest contexts first; the continuations of one context by count, then by recency."""

    name = "ngram"

    def __init__(self, longest: int = 3, shortest: int = 1) -> None:
        super().__init__()
        self._lengths = range(longest, shortest - 1, -1)
        self._tokens: list[int] = []
        self._followers: dict[tuple[int, ...], list[int]] = {}

    def begin(self, tokens: Sequence[int]) -> None:
        self.forget_proposed()
        self._tokens = []
        self._followers = {}
        for token in tokens:
            self._append(int(token))

    def propose(self, state: DraftState, budget: Budget) -> DraftTree:
        """What followed the accepted tokens; the state is not used."""
        found: dict[int, None] = {}
        for n in self._lengths:
            if len(found) >= budget.width or n > len(self._tokens):
                continue
            followers = self._followers.get(tuple(self._tokens[-n:]))
            if followers:
                found.update(dict.fromkeys(_ranked(followers[-_MAX_FOLLOWERS:])))
        return self.count_proposed(list(found)[: budget.width])

    def accept(self, token: int) -> None:
        self.count_accepted(token)
        self._append(token)

    def roll_back(self, n: int) -> None:
        self.forget_proposed()
        for _ in range(n):
            self._tokens.pop()
            for key in self._contexts():
                followers = self._followers[key]
                followers.pop()
                if not followers:
                    del self._followers[key]

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
