"""What a step costs, and how many drafted tokens are worth their rows.

t(n) is the time of one step with n rows: measured once for a model on a machine, then kept up to date from every step.
A chain of drafts with acceptance probabilities p1, p2, ... (each given that those before it are accepted) gives
1 + p1 + p1 p2 + ... tokens a step; the best length has the most of them a second.
"""

from __future__ import annotations

from collections.abc import Sequence

RATE = 0.02
"""Share of a new time in the running mean of its size."""
SHARED_RATE = 0.03
"""Share of it in those of all sizes: a machine that slows down does so for all, also for those that seldom run."""
MAX_JUMP = 2.0
"""A slower step counts as so many times the mean: most often another program had the machine for a moment."""


class CostModel:
    """Times of steps of 1 to `max_rows` rows, in any unit, at least one of them; missing ones are interpolated."""

    def __init__(self, times: dict[int, float] | None = None, max_rows: int = 8) -> None:
        self.max_rows = max_rows
        self.times = dict(times or {})
        least = float("inf")
        for n in sorted(self.times, reverse=True):  # one may have been measured at a bad moment
            least = self.times[n] = min(least, self.times[n])

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
            return
        change = min(seconds / known, MAX_JUMP) - 1.0
        for size in self.times:
            self.times[size] *= 1.0 + (SHARED_RATE + RATE if size == n else SHARED_RATE) * change
        # more rows never take less time: of two sizes that say so, the one that ran last is right
        now = self.times[n]
        for size, known in self.times.items():
            self.times[size] = max(known, now) if size > n else min(known, now)

    def best_length(self, probs: Sequence[float], drafting: float = 0.0) -> int:
        """How many of the drafted tokens to verify, given their conditional acceptance and the time they took."""
        return self._best(probs, drafting)[0]

    def _best(self, probs: Sequence[float], drafting: float) -> tuple[int, float]:
        """The best number of drafted tokens, and the time of a token with it."""
        best, best_time = 0, self.step(1) + drafting
        expected, reached = 1.0, 1.0
        for n, p in enumerate(probs[: self.max_rows - 1], 1):
            reached *= p
            expected += reached
            token_time = (self.step(n + 1) + drafting) / expected
            if token_time < best_time:
                best, best_time = n, token_time
        return best, best_time

    def saving(self, probs: Sequence[float], drafting: float, free: float, prob: float, seconds: float) -> float:
        """Time of a token that one more guess saves, below 0 where it costs more than it brings.

        The drafted tokens so far have the acceptance `probs` and took the time `drafting`; the next one has `prob` and
        takes `seconds`, or `free` and takes none.
        """
        without = self._best([*probs, free], drafting)[1]
        return without - self._best([*probs, max(free, prob)], drafting + seconds)[1]
