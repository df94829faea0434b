"""Suffix match: what followed the longest end of the text where it stood before in this conversation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from specee.predictors.drafters.context_table import ContextTable
from specee.predictors.drafters.guess import Guess, HitRates


class SuffixGuesser:
    """Contexts of one token and more.

    Another branch of a conversation keeps what the old one taught: an answer that is asked for again is often the same.
    Another conversation begins with an empty table.
    """

    name = "suffix"

    def __init__(self) -> None:
        self._table = ContextTable()
        self._rates = HitRates()
        self._text: list[int] = []

    def begin(self, tokens: Sequence[int]) -> None:
        new = list(tokens)
        shared = 0
        for old, token in zip(self._text, new, strict=False):
            if old != token:
                break
            shared += 1
        if 2 * shared < len(new):
            shared = 0
            self._table = ContextTable()
        self._text = new
        start = max(0, shared - self._table.longest)
        self._table.learn_text(new[start:], shared - start)

    def guess(self, context: Sequence[int], row: int | None) -> Guess | None:
        found = self._table.guess(context)
        if found is None:
            return None
        token, length, confidence = found
        kind = (length, confidence)
        return Guess(token, self._rates.estimate(kind, prior(length, confidence)), kind)

    def accept(self, token: int) -> None:
        self._text.append(token)
        self._table.learn(self._text[-self._table.longest - 1 :])

    def learn(self, kind: Hashable, hit: bool) -> None:
        self._rates.learn(kind, hit)


def prior(length: int, confidence: int) -> float:
    """Acceptance to begin with: what two models of 0.1 and 1.5 B showed, roughly."""
    return min(0.9, 0.14 + 0.12 * (length - 1) + 0.12 * confidence)
