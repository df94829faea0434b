"""Two-level schedule: which boundaries are armed for a token (SpecEE, ISCA 2025, section 5).

Offline level: the boundaries with the highest share of exits in calibration, armed always. Online level: boundaries
within a few layers of the exits of the last tokens, since exits of neighbouring tokens resemble each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Schedule:
    """Armed boundaries of one conversation. Boundaries are layers done, below n_layer."""

    def __init__(
        self,
        boundaries: Iterable[int],
        offline: Iterable[int],
        *,
        recent_exits: int = 5,
        reach: int = 2,
        arm_all: bool = False,
    ) -> None:
        self.boundaries = tuple(sorted(set(boundaries)))
        self.offline = self.boundaries if arm_all else tuple(sorted(set(offline) & set(self.boundaries)))
        self._reach = reach
        self._recent: deque[int | None] = deque(maxlen=recent_exits)

    def reset(self) -> None:
        """Forget the last exits: a new conversation begins."""
        self._recent.clear()

    def online(self) -> frozenset[int]:
        """Boundaries near the exits of the last tokens."""
        exits = {layer for layer in self._recent if layer is not None}
        return frozenset(b for b in self.boundaries if any(abs(b - layer) <= self._reach for layer in exits))

    def armed(self) -> tuple[int, ...]:
        """Both levels together, lowest first."""
        return tuple(sorted(self.online() | set(self.offline)))

    def note(self, exit_layer: int | None) -> bool:
        """Record a token's exit (None: it took all layers). True when the online level alone had armed it."""
        hit = exit_layer is not None and exit_layer in self.online()
        self._recent.append(exit_layer)
        return hit
