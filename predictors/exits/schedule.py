"""Two-level schedule, technique T2 of SpecEE (ISCA 2025, section 5): which exit layers are *armed*, that is, probed.

Offline level: the exit layers with the highest share of exits in calibration, armed always. Online level: exit layers
within a few layers of the exits of the last tokens, since exits of neighbouring tokens resemble each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Schedule:
    """Armed exit layers of one conversation. An exit layer counts layers done, below n_layer."""

    def __init__(
        self,
        exit_layers: Iterable[int],
        offline: Iterable[int],
        *,
        recent_exits: int = 5,
        reach: int = 2,
        arm_all: bool = False,
    ) -> None:
        self.exit_layers = tuple(sorted(set(exit_layers)))
        self.offline = self.exit_layers if arm_all else tuple(sorted(set(offline) & set(self.exit_layers)))
        self._reach = reach
        self._recent: deque[int | None] = deque(maxlen=recent_exits)

    def reset(self) -> None:
        """Forget the last exits: a new conversation begins."""
        self._recent.clear()

    def online(self) -> frozenset[int]:
        """Exit layers near the exits of the last tokens."""
        exits = {layer for layer in self._recent if layer is not None}
        return frozenset(e for e in self.exit_layers if any(abs(e - layer) <= self._reach for layer in exits))

    def armed(self) -> tuple[int, ...]:
        """Both levels together, lowest first."""
        return tuple(sorted(self.online() | set(self.offline)))

    def record(self, exit_layer: int | None) -> bool:
        """Record a token's exit (None: it took all layers). True when the online level had armed its layer.

        The offline level may have armed it, too.
        """
        hit = exit_layer is not None and exit_layer in self.online()
        self._recent.append(exit_layer)
        return hit
