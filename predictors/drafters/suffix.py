"""Suffix match: what followed the longest end of the text that stood before, in the prompt, the answer, or earlier."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from specee.predictors.drafters.context_table import ContextTable
from specee.predictors.drafters.guess import Guess, HitRates


class SuffixGuesser:
    """Contexts of one token and more. Learns each token that is accepted; the table may come filled."""

    name = "suffix"

    def __init__(self, table: ContextTable | None = None) -> None:
        self.table = table or ContextTable()
        self._rates = HitRates()
        self._text: list[int] = []

    def begin(self, tokens: Sequence[int]) -> None:
        known = len(self._text)
        new = list(tokens)
        if new[:known] != self._text:  # another conversation, or another branch of this one
            known = 0
        self._text = new
        self.table.learn_text(new[max(0, known - self.table.longest) :])

    def guess(self, context: Sequence[int], row: int | None) -> Guess | None:
        found = self.table.guess(context)
        if found is None:
            return None
        token, length, confidence = found
        kind = (length, confidence)
        return Guess(token, self._rates.estimate(kind, prior(length, confidence)), kind)

    def accept(self, token: int) -> None:
        self._text.append(token)
        self.table.learn(self._text[-self.table.longest - 1 :])

    def learn(self, kind: Hashable, hit: bool) -> None:
        self._rates.learn(kind, hit)


def prior(length: int, confidence: int) -> float:
    """Acceptance to begin with: what two models of 0.1 and 1.5 B showed, roughly."""
    return min(0.9, 0.14 + 0.12 * (length - 1) + 0.12 * confidence)
