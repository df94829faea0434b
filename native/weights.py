"""The weights that a calibration gives the library: lenses, predictors, shortlist, draft head."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.native.abi import float_p, int32_p
from specee.native.context import RowContext

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]
Blocks = NDArray[np.uint8]  # of Q8_0: 34 bytes for 32 weights


def _f32(a: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(a, dtype=np.float32)


class WeightedContext(RowContext):
    """A context that takes weights, which are copied, and gives rows of the model's own, from which they are fitted."""

    def set_lens(self, layer: int, down: Blocks, up: Blocks | None, bias: Floats) -> None:
        """Lens of a layer: Q8_0 bytes of [rank, n_embd] and [n_embd, rank] (None: square), bias float32 [n_embd]."""
        down, bias = np.ascontiguousarray(down), _f32(bias)
        up = None if up is None else np.ascontiguousarray(up)
        up_data = None if up is None else up.ctypes.data
        self._check(
            self.lib.specee_lens_set(self._handle, layer, down.shape[0], down.ctypes.data, up_data, float_p(bias))
        )

    def set_predictor(self, layer: int, w1: Floats, b1: Floats, w2: Floats, b2: float) -> None:
        """Predictor of a layer: w1 float32 [n_hidden, 3k], b1 and w2 [n_hidden]."""
        w1, b1, w2 = _f32(w1), _f32(b1), _f32(w2).reshape(-1)
        n_hidden, k = w1.shape[0], w1.shape[1] // 3
        self._check(
            self.lib.specee_predictor_set(
                self._handle, layer, k, n_hidden, float_p(w1), float_p(b1), float_p(w2), float(b2)
            )
        )

    def set_shortlist(self, tokens: Tokens, up: Blocks) -> None:
        """Frequent tokens int32 [n] and their head rows, Q8_0 bytes of [n, n_embd]."""
        tokens, up = np.ascontiguousarray(tokens, dtype=np.int32), np.ascontiguousarray(up)
        self._check(self.lib.specee_shortlist_set(self._handle, len(tokens), int32_p(tokens), up.ctypes.data))

    def set_draft(self, down: Blocks, tokens: Tokens, up: Blocks, bias: Floats) -> None:
        """Linear draft head: Q8_0 bytes of [rank, 2 n_embd] and [n, rank], shortlist int32 [n], bias float32 [n]."""
        down, up = np.ascontiguousarray(down), np.ascontiguousarray(up)
        tokens, bias = np.ascontiguousarray(tokens, dtype=np.int32), _f32(bias)
        rank, n = down.shape[0], len(tokens)
        self._check(
            self.lib.specee_draft_set(
                self._handle, rank, down.ctypes.data, n, int32_p(tokens), up.ctypes.data, float_p(bias)
            )
        )

    def embedding_rows(self, tokens: Sequence[int] | Tokens) -> Floats:
        """Token embeddings: float32 [n, n_embd]."""
        return self._model_rows(self.lib.specee_embedding_rows, tokens)

    def head_rows(self, tokens: Sequence[int] | Tokens) -> Floats:
        """Rows of the LM head times the final norm's weight and what scales logits: float32 [n, n_embd]."""
        return self._model_rows(self.lib.specee_head_rows, tokens, None)

    def head_constants(self, tokens: Sequence[int] | Tokens) -> Floats:
        """What is added to the products of `head_rows`: float32 [n]."""
        constants = np.empty(len(tokens), dtype=np.float32)
        self._model_rows(self.lib.specee_head_rows, tokens, float_p(constants))
        return constants

    def head_shape(self) -> tuple[bool, float]:
        """Whether the final norm takes off the mean; and c where logits are c tanh(x), else 0."""
        centred, cap = ctypes.c_int32(), ctypes.c_float()
        self._check(self.lib.specee_head_shape(self._handle, ctypes.byref(centred), ctypes.byref(cap)))
        return bool(centred.value), cap.value

    def _model_rows(self, read: Any, tokens: Sequence[int] | Tokens, *others: Any) -> Floats:
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        out = np.empty((len(ids), self.n_embd), dtype=np.float32)
        self._check(read(self._handle, len(ids), int32_p(ids), float_p(out), *others))
        return out
