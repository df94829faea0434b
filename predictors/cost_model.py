"""What a step costs, and how many drafted tokens are worth their rows.

t(n) is the time of one step with n rows: measured once for a model on a machine, then kept up to date from every step.
A chain of drafts with acceptance probabilities p1, p2, ... (each given that those before it are accepted) gives
1 + p1 + p1 p2 + ... tokens a step; the best length has the most of them a second.
"""

from __future__ import annotations

from collections.abc import Sequence

RATE = 0.05
"""Share of a new time in the running mean."""
MAX_JUMP = 2.0
"""A slower step counts as so many times the mean: most often another program had the machine for a moment."""


class CostModel:
    """Times of steps of 1 to `max_rows` rows, in any unit, at least one of them; missing ones are interpolated."""

    def __init__(self, times: dict[int, float] | None = None, max_rows: int = 8) -> None:
        self.max_rows = max_rows
        self.times = dict(times or {})

    def step(self, n: int) -> float:
        """t(n)."""
        if n in self.times:
            return self.times[n]
        below = max((m for m in self.times if m < n), default=None)
        above = min((m for m in self.times if m > n), default=None)
        if below is None or above is None:
            known = self.times[below if below is not None else above]  # type: ignore[index]
            return known if below is None else known * n / below
        share = (n - below) / (above - below)
        return self.times[below] + share * (self.times[above] - self.times[below])

    def record(self, n: int, seconds: float) -> None:
        """A step of n rows took so long."""
        if seconds <= 0.0:  # without a clock
            return
        known = self.times.get(n)
        if known is None:
            self.times[n] = seconds
        else:
            self.times[n] = known + RATE * (min(seconds, MAX_JUMP * known) - known)

    def best_length(self, probs: Sequence[float]) -> int:
        """How many of the drafted tokens to verify, given their conditional acceptance."""
        best, best_rate = 0, 1.0 / self.step(1)
        expected, reached = 1.0, 1.0
        for n, p in enumerate(probs[: self.max_rows - 1], 1):
            reached *= p
            expected += reached
            rate = expected / self.step(n + 1)
            if rate > best_rate:
                best, best_rate = n, rate
        return best

    def worth_extending(self, probs: Sequence[float]) -> bool:
        """Whether one more drafted token of certain acceptance would be worth its row: no need to draft on if not."""
        n = len(probs)
        if n + 1 >= self.max_rows:
            return False
        reached = expected = 1.0
        for p in probs:
            reached *= p
            expected += reached
        return (expected + reached) / self.step(n + 2) > expected / self.step(n + 1)
