"""The linear draft head: [final state of the previous position ; embedding of the token] -> next final state.

The arithmetic is the engine's (see `specee_draft_set` in native/src/specee.h); calibration fits the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from specee.predictors.drafters.base import DraftStats
from specee.predictors.types import Engine


class LinearHead:
    """The k best words of the shortlist. Not usable at position 0, which has no previous state."""

    name = "linear"

    def __init__(self) -> None:
        self.stats = DraftStats()
        self._last: frozenset[int] = frozenset()

    def begin(self, history: Sequence[int]) -> None:
        self._last = frozenset()

    def draft(self, engine: Engine, pos: int, token: int, k: int) -> list[int]:
        found = [int(word) for word in engine.draft(pos, token, k)] if pos > 0 else []
        self._last = frozenset(found)
        self.stats.asked += 1
        self.stats.given += len(found)
        return found

    def accept(self, token: int) -> None:
        self.stats.hits += token in self._last
        self._last = frozenset()

    def withdraw(self, n: int) -> None:
        self._last = frozenset()
