"""What several of the runtime's tests do with an engine."""

from __future__ import annotations

import ctypes
import os

import numpy as np

from specee.native.engine import RowEngine

GPU_LAYERS = int(os.environ.get("SPECEE_TEST_GPU_LAYERS", "0"))
ROUNDING = 0.05 if GPU_LAYERS else 0.01  # of the largest logit, where rows are computed by other kernels


def random_tokens(engine: RowEngine, n: int, seed: int = 1) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(3, min(engine.n_vocab, 400), n)]


def append_all(engine: RowEngine, tokens: list[int]) -> list[int]:
    """Rows in flight of these tokens, one after the other."""
    rows: list[int] = []
    for token in tokens:
        rows.append(engine.append(token, rows[-1] if rows else -1))
    return rows


def run_rows(engine: RowEngine, tokens: list[int], logits: bool = True) -> None:
    """These tokens in one batch through all layers, committed; logits row i is token i's."""
    rows = append_all(engine, tokens)
    engine.advance(rows, engine.n_layer, logits)
    engine.commit(rows[-1])


def kv_bytes(engine: RowEngine) -> bytes:
    """Every byte of K and V."""
    llama, context = engine.model.llama, engine._context
    size = llama.llama_state_seq_get_size(context, engine.slot)
    buffer = (ctypes.c_uint8 * size)()
    return ctypes.string_at(buffer, llama.llama_state_seq_get_data(context, buffer, size, engine.slot))
