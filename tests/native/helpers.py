"""What several of the runtime's tests do with an engine."""

from __future__ import annotations

import ctypes
import os

import numpy as np

from specee.native.engine import RowEngine

GPU_LAYERS = int(os.environ.get("SPECEE_TEST_GPU_LAYERS", "0"))
N_WORKERS = int(os.environ.get("SPECEE_TEST_WORKERS", "0"))
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


def kv_numbers(engine: RowEngine) -> list[bytes]:
    """K and V of each cache of the slot, without what llama.cpp writes about the context and the cells."""
    found, data, at = [], kv_bytes(engine), 8

    def read() -> int:
        nonlocal at
        at += 4
        return int.from_bytes(data[at - 4 : at], "little")

    while at < len(data):
        read()  # streams: of one sequence there is one
        n_cells = 0
        while n_cells == 0:  # empty ones before it
            n_cells = read()
        at += 12 * n_cells
        begin, transposed, n_layers = at, read(), read()
        for _ in range(n_layers):
            at += 4
            row = read() + (read() << 32)
            at += n_cells * row
        for _ in range(n_layers):
            at += 4
            row = read() * read() if transposed else read() + (read() << 32)
            at += n_cells * row
        found.append(data[begin:at])
        while at < len(data) and data[at : at + 4] == bytes(4):  # empty streams after it
            at += 4
    return found


def kv_bytes(engine: RowEngine) -> bytes:
    """Every byte of K and V."""
    llama, context = engine.model.llama, engine._context
    size = llama.llama_state_seq_get_size(context, engine.slot)
    buffer = (ctypes.c_uint8 * size)()
    return ctypes.string_at(buffer, llama.llama_state_seq_get_data(context, buffer, size, engine.slot))
