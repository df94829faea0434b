"""The linear draft head: [final state of the previous position ; embedding of the token] -> next final state.

The arithmetic is the engine's (see `specee_draft_set` in native/src/specee.h); calibration fits the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from specee.predictors.drafters.base import Budget, DraftState, DraftTree, HitCounter
from specee.predictors.types import Tokens

Draft = Callable[[int, int, int], Tokens]
"""`Engine.draft`: (row, token, k) -> the k best guesses for the token after `token`, which follows `row`."""


class LinearHeadDrafter(HitCounter):
    """The k best tokens of the shortlist. Proposes nothing at the first position, which has no previous state."""

    name = "linear"

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self._draft = draft

    def begin(self, tokens: Sequence[int]) -> None:
        self.forget_proposed()

    def propose(self, state: DraftState, budget: Budget) -> DraftTree:
        found = self._draft(state.row, state.tokens[-1], budget.width).tolist() if state.row >= 0 else []
        return self.count_proposed(found)

    def accept(self, token: int) -> None:
        self.count_accepted(token)

    def roll_back(self, n: int) -> None:
        self.forget_proposed()
