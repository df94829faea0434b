"""Dense against the exact policies, round by round: each has a stretch of the same answer in every round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

STRETCH = 32  # tokens of a turn
COUNTED = 16  # a turn that an answer's end cuts shorter than this counts for nothing
WARM_UP = 8  # tokens of the first turn of each, which counts for nothing: graphs are built at their first use
ROUNDS = 5
PATIENCE = 15  # rounds, when they differ widely
UNSTEADY = 1.25  # rounds that differ by more than this factor decide nothing
WORTH = 0.99  # exits cost at most this much of the dense rate
SURELY = 0.95  # and in bad rounds not more than this


@dataclass
class Comparison:
    """A referee for `predictors.policies.InTurns`. Turn 0 is dense; turn i has the exit rule `rules[i - 1]`.

    `rounds`: tokens per second of each, round by round. Rates are compared within a round only, so that a machine that
    slows down harms all alike.
    """

    rules: tuple[str | None, ...]
    rounds: list[list[float]] = field(default_factory=list)
    _open: dict[int, float] = field(default_factory=dict)
    _warm: set[int] = field(default_factory=set)

    def next_turn(self) -> tuple[int, int | None]:
        if self.decided:
            return self.winner, None
        number = len(self.rules) + 1
        if len(self._warm) < number:
            return len(self._warm), WARM_UP
        first = len(self.rounds) % number  # who begins rotates
        turn = next(t % number for t in range(first, first + number) if t % number not in self._open)
        return turn, STRETCH

    def took(self, policy: int, tokens: int, seconds: float) -> None:
        if self.decided:
            return
        if policy not in self._warm:
            self._warm.add(policy)
        elif tokens >= COUNTED:
            self._open[policy] = tokens / max(seconds, 1e-9)
            if len(self._open) > len(self.rules):
                self.rounds.append([self._open[turn] for turn in sorted(self._open)])
                self._open = {}

    # ---- what comes of it ------------------------------------------------------------------------------------------

    @property
    def decided(self) -> bool:
        return len(self.rounds) >= PATIENCE or (len(self.rounds) >= ROUNDS and self.steady)

    @property
    def steady(self) -> bool:
        """Whether the best policy's rounds agree."""
        low, _, high = quartiles(self.ratios(self.best))
        return high <= UNSTEADY * low

    @property
    def best(self) -> int:
        """The fastest exact policy's turn."""
        return max(range(1, len(self.rules) + 1), key=lambda turn: quartiles(self.ratios(turn))[1])

    @property
    def ratio(self) -> float:
        """Its rate over dense's: the median of the rounds."""
        return quartiles(self.ratios(self.best))[1]

    @property
    def winner(self) -> int:
        """Who answers from now on: an exact policy only if it costs nothing."""
        low, middle, _ = quartiles(self.ratios(self.best))
        return self.best if self.steady and middle >= WORTH and low >= SURELY else 0

    @property
    def dense_rate(self) -> float | None:
        """Tokens per second, once there is a round."""
        return quartiles([rates[0] for rates in self.rounds])[1] if self.rounds else None

    def ratios(self, turn: int) -> list[float]:
        """A policy's rates over dense's."""
        return [rates[turn] / rates[0] for rates in self.rounds]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of two in the middle the lower one: rather too slow than too fast."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[last // 4], ordered[last // 2], ordered[last - last // 4]
