"""How far a transfer has come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 10.0


@dataclass(frozen=True)
class TransferProgress:
    """`done` of `total` bytes; `rate` in bytes a second and `eta` in seconds are None until they are known."""

    done: int
    total: int
    rate: float | None = None
    eta: float | None = None

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 1.0


OnProgress = Callable[[TransferProgress], None]


class RateMeter:
    """Measures the rate of the last seconds; what was on this machine before counts as done and not for the rate."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, done: int) -> TransferProgress:
        """The state when `done` bytes are here."""
        now = self._clock()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # a transfer began again from the front
        self._seen.append((now, done))
        while self._seen[0][0] < now - WINDOW_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        began, before = self._seen[0]
        rate = (done - before) / (now - began) if now > began and done > before else None
        return TransferProgress(done, self._total, rate, (self._total - done) / rate if rate else None)
