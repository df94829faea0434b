"""Rows in flight: stopped rows that wait below the last layer, and the one that rises.

Depths never grow with the position (a row may only attend to rows at least as deep), so whatever has to rise is a
suffix, and rows join as their depths meet: the last layers are always computed for all of them in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from specee.predictors.types import Engine, Rise


class Flight:
    """The rows of one answer that are not at n_layer yet: contiguous, up to the end of the sequence."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.passes = 0
        self._first = engine.length
        self._depths: list[int] = []
        self._token = -1

    @property
    def n_rows(self) -> int:
        return len(self._depths)

    def start(self, token: int) -> int:
        """A new row at depth 0: its position. It must climb before another one starts."""
        self._depths.append(0)
        self._token = token
        return self._first + len(self._depths) - 1

    def climb(self, end: int, logits: bool = False) -> None:
        """Bring every row to depth `end` at least; at n_layer all arrive in one batch, with logits in row order."""
        while self._depths and self._depths[-1] < end:
            depth = self._depths[-1]
            i = self._depths.index(depth)  # rows i.. share the least depth
            stop = min(end, self._depths[i - 1]) if i else end
            n = len(self._depths) - i
            tokens = [self._token] if depth == 0 else None
            self.engine.advance(self._first + i, n, stop, tokens, logits and stop == self.engine.n_layer)
            self._depths[i:] = [stop] * n
        if end == self.engine.n_layer:
            self.passes += 1
            self._first += len(self._depths)
            self._depths.clear()

    def rise(
        self, token: int | None, layers: Sequence[int], k: int, candidates: Sequence[int], threshold: float
    ) -> Rise:
        """The engine's rise of the last row; `token` is None for one that has risen before."""
        if token is not None:
            self.start(token)
        seen = self.engine.rise(token, layers, k, candidates, threshold)
        reached = layers[min(seen.stopped, len(layers) - 1)]
        self._depths = [max(depth, reached) for depth in self._depths]
        return seen

    def fill(self) -> None:
        """Complete K and V of the last row from its present state; it must be the only one."""
        assert len(self._depths) == 1
        self.engine.propagate(self._first, 1)
        self._first += 1
        self._depths.clear()

    def roll_back(self, length: int) -> None:
        """Forget every position from `length` on."""
        self.engine.roll_back(length)
        self._depths = self._depths[: max(length - self._first, 0)]
        self._first = min(self._first, length)

    def land(self) -> None:
        """The answer is over: leave no row with layers undone. When they cannot be computed, forget the rows."""
        if not self._depths:
            return
        try:
            self.climb(self.engine.n_layer)
        finally:
            if self._depths:
                self.roll_back(self._first)
