"""Is decoding with exits as fast as dense here? Measured in rounds: each policy decodes some tokens in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

PART_TOKENS = 32  # that each policy decodes in a round: its part of it
MIN_PART_TOKENS = 16  # a part that the answer's end cuts shorter does not count
WARM_UP_TOKENS = 8  # of each policy's first part, which does not count: graphs are built at their first use
ROUNDS = 5
MAX_ROUNDS = 15  # when they differ widely
STEADY_SPREAD = 1.25  # rounds that differ by more than this factor decide nothing
MIN_RATIO = 0.99  # of dense's rate that exits must reach
MIN_LOW_RATIO = 0.95  # and this much in slow rounds


@dataclass
class PolicyComparison:
    """Dense against the exact policy with each of `rules`: a `Comparison` for predictors.decoding.alternating.

    Policy 0 is dense, policy i has the exit rule `rules[i - 1]`. `rounds`: tokens per second of each policy, round by
    round. Rates are compared within a round only, so that a machine that slows down harms all alike.
    """

    rules: tuple[str | None, ...]
    rounds: list[list[float]] = field(default_factory=list)
    _round: dict[int, float] = field(default_factory=dict)
    """Rates in the round under way."""
    _warm: set[int] = field(default_factory=set)
    """Policies that have run once."""

    def next_policy(self) -> tuple[int, int | None]:
        """Who decodes next, and how many tokens; None: all the rest."""
        if self.decided:
            return self.winner, None
        number = len(self.rules) + 1
        if len(self._warm) < number:
            return len(self._warm), WARM_UP_TOKENS
        first = len(self.rounds) % number  # who begins a round rotates
        policy = next(p % number for p in range(first, first + number) if p % number not in self._round)
        return policy, PART_TOKENS

    def record(self, policy: int, tokens: int, seconds: float) -> None:
        """A part is over; an answer may have ended before it."""
        if self.decided:
            return
        if policy not in self._warm:
            self._warm.add(policy)
        elif tokens >= MIN_PART_TOKENS:
            self._round[policy] = tokens / max(seconds, 1e-9)
            if len(self._round) > len(self.rules):
                self.rounds.append([self._round[policy] for policy in sorted(self._round)])
                self._round = {}

    # ---- the result ------------------------------------------------------------------------------------------------

    @property
    def decided(self) -> bool:
        return len(self.rounds) >= MAX_ROUNDS or (len(self.rounds) >= ROUNDS and self.steady)

    @property
    def progress(self) -> str:
        """The round under way, for a user."""
        number = len(self.rounds) + 1
        return f"round {number} of {ROUNDS}" if number <= ROUNDS else f"round {number} of at most {MAX_ROUNDS}"

    @property
    def steady(self) -> bool:
        """Whether the rounds of the fastest exact policy agree."""
        low, _, high = quartiles(self.ratios(self.fastest))
        return high <= STEADY_SPREAD * low

    @property
    def fastest(self) -> int:
        """The fastest exact policy."""
        return max(range(1, len(self.rules) + 1), key=lambda policy: quartiles(self.ratios(policy))[1])

    @property
    def ratio(self) -> float:
        """Its rate over dense's: the median of the rounds."""
        return quartiles(self.ratios(self.fastest))[1]

    @property
    def low_ratio(self) -> float:
        """The same in slow rounds: the lower quartile."""
        return quartiles(self.ratios(self.fastest))[0]

    @property
    def winner(self) -> int:
        """Who answers from now on: an exact policy only if it costs nothing."""
        worth_it = self.ratio >= MIN_RATIO and self.low_ratio >= MIN_LOW_RATIO
        return self.fastest if self.steady and worth_it else 0

    @property
    def dense_rate(self) -> float | None:
        """Tokens per second of dense decoding, once there is a round."""
        return quartiles([rates[0] for rates in self.rounds])[1] if self.rounds else None

    def ratios(self, policy: int) -> list[float]:
        """A policy's rates over dense's."""
        return [rates[policy] / rates[0] for rates in self.rounds]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of two in the middle the lower one: rather too slow than too fast."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[last // 4], ordered[last // 2], ordered[last - last // 4]
