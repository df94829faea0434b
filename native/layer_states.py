"""An engine that keeps what some layers made of each committed token: what EAGLE-3 heads draft from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from specee.native import abi
from specee.native.abi import float_p, int32_p
from specee.native.engine import RowEngine
from specee.native.errors import NativeError
from specee.native.model import Model
from specee.native.weights import Floats


class LayerStatesEngine(RowEngine):
    """Rows stop for a moment at each of `layers` (1 to n_layer - 1); their bits stay the same. Each slot keeps its own.

    Rows that skip one of these layers and are completed later have no states: `n_known` does not grow beyond them.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[int],
        *,
        n_ctx: int = 4096,
        n_slots: int = 1,
        n_threads: int | None = None,
        n_batch: int = 512,
    ) -> None:
        if model.unsupported:
            raise NativeError("no states of layers", model.unsupported)
        self.layers = tuple(layers)
        self._new: dict[int, dict[int, Floats]] = {}  # row in flight, of any slot -> layer -> state
        super().__init__(model, n_ctx=n_ctx, n_slots=n_slots, n_threads=n_threads, n_batch=n_batch)
        wanted = np.asarray(self.layers, np.int32)
        self._check(self.lib.specee_rows_keep_layers(self._handle, len(wanted), int32_p(wanted)))

    def _begin(self, slot: int) -> None:
        super()._begin(slot)
        self.keeps_states = True
        """Otherwise it is a RowEngine, whose new tokens have no states."""
        self.n_known = 0
        """So many of the first committed tokens have states."""
        # pages that nothing is written to take no memory
        self._states: NDArray[np.float16] = np.empty((self.n_ctx, len(self.layers), self.n_embd), np.float16)
        self._parents: dict[int, int] = {}

    def states(self, begin: int, end: int) -> Floats:
        """Of the tokens at these positions: float32 [end - begin, layers * n_embd]."""
        return self._states[begin:end].reshape(end - begin, -1).astype(np.float32)

    def prefill(self, tokens: Sequence[int], on_chunk: Callable[[int, int], None] | None = None) -> int:
        if self.keeps_states and self.length > self.n_known:
            self.roll_back(self.n_known)  # to be read again, with states

        read = 0

        def keep(done: int, total: int) -> None:
            nonlocal read
            n, read = done - read, done
            if self.n_known == self.length - n:
                states = np.empty((n, self.n_embd), np.float32)
                for i in range(len(self.layers)):
                    self._check(self.lib.specee_rows_layer_states(self._handle, i, n, float_p(states)))
                    self._states[self.n_known : self.length, i] = states
                self.n_known = self.length
            if on_chunk is not None:
                on_chunk(done, total)

        return super().prefill(tokens, keep)

    def forward(self, token: int) -> int:
        if not self.keeps_states:
            return super().forward(token)
        row = self.append(token)
        try:
            self.advance((row,), self.n_layer, logits=True)
        except BaseException:
            self.roll_back(self.length)
            raise
        self.commit(row)
        return row

    def append(self, token: int, parent: int = -1) -> int:
        row = super().append(token, parent)
        self._parents[row] = parent
        return row

    def _advance(self, rows: Sequence[int], end: int, flags: int) -> None:
        if not rows or not self.keeps_states or flags & abi.KV_ONLY:
            super()._advance(rows, end, flags)
            return
        depth = self.depth(rows[0])
        for layer in self.layers:
            if depth < layer < end:
                super()._advance(rows, layer, 0)
                self._keep(rows, layer)
        super()._advance(rows, end, flags)
        if depth < end and end in self.layers:
            self._keep(rows, end)

    def _keep(self, rows: Sequence[int], layer: int) -> None:
        for row in rows:
            self._new.setdefault(row, {})[layer] = self.hidden(row)

    def commit(self, row: int) -> None:
        path = [row]
        while (parent := self._parents.get(path[-1], -1)) in self._parents:
            path.append(parent)
        begin = self.length
        super().commit(row)
        if self.n_known == begin:
            for each in reversed(path):
                kept = self._new.get(each, {})
                if len(kept) < len(self.layers):
                    break
                self._states[self.n_known] = [kept[layer] for layer in self.layers]
                self.n_known += 1
        self._forget()

    def roll_back(self, length: int) -> None:
        super().roll_back(length)
        self.n_known = min(self.n_known, length)
        self._forget()

    def _forget(self) -> None:
        for row in self._parents:
            self._new.pop(row, None)
        self._parents.clear()
