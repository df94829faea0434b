"""An engine that keeps what some layers made of each committed token: what EAGLE-3 heads draft from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from specee.native.abi import float_p, int32_p
from specee.native.engine import RowEngine
from specee.native.errors import NativeError
from specee.native.model import Model
from specee.native.weights import Floats


class NoLayerStatesError(NativeError):
    """The model does not show what its layers make of a token."""


class LayerStatesEngine(RowEngine):
    """The states after `layers` (1 to n_layer - 1) are kept as rows pass them; their bits stay the same. Each slot
    keeps its own.

    Rows whose K/V were propagated have none: `n_known` does not grow beyond them.
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
        kv_type: str = "f16",
    ) -> None:
        self.layers = tuple(layers)
        super().__init__(model, n_ctx=n_ctx, n_slots=n_slots, n_threads=n_threads, n_batch=n_batch, kv_type=kv_type)
        if self.no_ranges:
            self.close()
            raise NoLayerStatesError("the drafter does not fit", f"it reads states of layers, and {self.no_ranges}")
        wanted = np.asarray(self.layers, np.int32)
        self._check(self.lib.specee_rows_keep_layers(self._handle, len(wanted), int32_p(wanted)))

    def _begin(self, slot: int) -> None:
        super()._begin(slot)
        self.needs_states = True
        """Tokens of a prompt that have no states are read again."""

    @property
    def n_known(self) -> int:
        """So many of the first committed tokens have states."""
        return self._check(self.lib.specee_rows_n_layer_states(self._handle, self.slot))

    def states(self, begin: int, end: int) -> Floats:
        """Of the tokens at these positions: float32 [end - begin, layers * n_embd]."""
        out = np.empty((end - begin, len(self.layers) * self.n_embd), np.float32)
        self._check(self.lib.specee_rows_layer_states(self._handle, self.slot, begin, end - begin, float_p(out)))
        return out

    def prefill(self, tokens: Sequence[int], on_chunk: Callable[[int, int], None] | None = None) -> int:
        if self.needs_states and self.n_known < self.length:
            self.roll_back(self.n_known)
        return super().prefill(tokens, on_chunk)
