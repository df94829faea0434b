"""Several sources in a row: the cheap one first, the next fills what is left open."""

from __future__ import annotations

from collections.abc import Sequence

from specee.predictors.drafters.base import DraftSource, DraftStats
from specee.predictors.drafters.linear_head import LinearHead
from specee.predictors.drafters.ngram import NGram
from specee.predictors.exits.rules import ExitRules
from specee.predictors.types import Engine


def merge(first: Sequence[int], second: Sequence[int], k: int) -> list[int]:
    """The first k distinct tokens of both, in order."""
    return list(dict.fromkeys((*first, *second)))[:k]


class Chain:
    """Fills k distinct candidates from its sources; all but the last one give at most `share` of them."""

    name = "chain"

    def __init__(self, sources: Sequence[DraftSource], share: int) -> None:
        self.sources = tuple(sources)
        self.stats = DraftStats()
        self._share = share
        self._last: frozenset[int] = frozenset()

    def begin(self, history: Sequence[int]) -> None:
        self._last = frozenset()
        for source in self.sources:
            source.begin(history)

    def draft(self, engine: Engine, pos: int, token: int, k: int) -> list[int]:
        found: list[int] = []
        for source in self.sources:
            share = k if source is self.sources[-1] else min(self._share, k)
            if len(found) < k:
                found = merge(found, source.draft(engine, pos, token, share), k)
        self._last = frozenset(found)
        self.stats.asked += 1
        self.stats.given += len(found)
        return found

    def accept(self, token: int) -> None:
        self.stats.hits += token in self._last
        self._last = frozenset()
        for source in self.sources:
            source.accept(token)

    def withdraw(self, n: int) -> None:
        self._last = frozenset()
        for source in self.sources:
            source.withdraw(n)


def build(rules: ExitRules) -> Chain:
    """The sources that the rules name."""
    made: dict[str, DraftSource] = {
        "ngram": NGram(rules.ngram_max, rules.ngram_min),
        "linear": LinearHead(),
    }
    return Chain([made[name] for name in rules.sources if name in made], rules.ngram_share)
