"""When a draft is long enough. `length` says how many of the drafted tokens are verified; drafting goes on for as long
as one more token of certain acceptance would be."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

from specee.predictors.cost_model import CostModel


class Termination(Protocol):
    """A rule that ends drafts."""

    def length(self, probs: Sequence[float], seconds: float) -> int:
        """How many of the drafted tokens to verify, given their conditional acceptance and the time they took."""
        ...

    def learn(self, drafted: int, accepted: int) -> None:
        """Of a draft so many tokens were verified and accepted."""
        ...


class BestLength:
    """The most tokens a second, by the cost model."""

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost

    def length(self, probs: Sequence[float], seconds: float) -> int:
        return self._cost.best_length(probs, seconds)

    def learn(self, drafted: int, accepted: int) -> None:
        """The cost model learns from times."""


class FixedLength:
    """Always `n` tokens, where so many are found."""

    def __init__(self, n: int) -> None:
        self._n = n

    def length(self, probs: Sequence[float], seconds: float) -> int:
        return min(self._n, len(probs))

    def learn(self, drafted: int, accepted: int) -> None:
        """Nothing changes it."""


class HeuristicLength:
    """Two tokens more after a draft that was accepted whole, one less after any other (transformers' `heuristic`)."""

    def __init__(self, n: int = 5) -> None:
        self._n = n

    def length(self, probs: Sequence[float], seconds: float) -> int:
        return min(self._n, len(probs))

    def learn(self, drafted: int, accepted: int) -> None:
        self._n = self._n + 2 if accepted == drafted else max(1, self._n - 1)


class AdaptiveThreshold:
    """Up to the token where the whole path is accepted with less than a threshold.

    The threshold moves towards an acceptance that was aimed at (Zhang et al., "Draft & Verify", ACL 2024, section 3.3;
    the constants are theirs, but that a path's probability is compared, not a token's).
    """

    TARGET = 0.9
    STEP = 0.01
    OLD_RATE, OLD_THRESHOLD = 0.5, 0.9  # shares of what was before in the running means

    def __init__(self, threshold: float = 0.6) -> None:
        self.threshold = threshold
        self._rate = self.TARGET

    def length(self, probs: Sequence[float], seconds: float) -> int:
        return sum(prod(probs[: n + 1]) >= self.threshold for n in range(len(probs)))

    def learn(self, drafted: int, accepted: int) -> None:
        self._rate = self.OLD_RATE * self._rate + (1 - self.OLD_RATE) * accepted / drafted
        wanted = self.threshold + (self.STEP if self._rate <= self.TARGET else -self.STEP)
        self.threshold = self.OLD_THRESHOLD * self.threshold + (1 - self.OLD_THRESHOLD) * min(max(wanted, 0.0), 1.0)
