"""Several drafters, the cheap one first; the next ones fill what is left open."""

from __future__ import annotations

from collections.abc import Sequence

from specee.predictors.drafters.base import Budget, Drafter, DraftState, DraftTree, HitCounter


class CombinedDrafter(HitCounter):
    """Distinct tokens of its drafters, in order; all but the last one give at most `share` of them."""

    name = "combined"

    def __init__(self, drafters: Sequence[Drafter], share: int) -> None:
        super().__init__()
        self.drafters = tuple(drafters)
        self._share = share

    def begin(self, tokens: Sequence[int]) -> None:
        self.forget_proposed()
        for drafter in self.drafters:
            drafter.begin(tokens)

    def propose(self, state: DraftState, budget: Budget) -> DraftTree:
        found: dict[int, None] = {}
        for drafter in self.drafters:
            if len(found) < budget.width:
                share = budget.width if drafter is self.drafters[-1] else min(self._share, budget.width)
                found.update(dict.fromkeys(drafter.propose(state, Budget(share)).tokens))
        return self.count_proposed(list(found)[: budget.width])

    def accept(self, token: int) -> None:
        self.count_accepted(token)
        for drafter in self.drafters:
            drafter.accept(token)

    def roll_back(self, n: int) -> None:
        self.forget_proposed()
        for drafter in self.drafters:
            drafter.roll_back(n)
