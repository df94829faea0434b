"""Mixtures of experts: as many rows as get equal bits may all meet one expert."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import ggml_kernels as kernels
import pytest
import tiny_gguf
from helpers import append_all, random_tokens

from specee.native import abi
from specee.native.engine import Model, RowEngine


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "IQ4_XS"])
def test_eight_rows_on_one_expert_get_the_bits_of_single_ones(tmp_path: Path, kind: str) -> None:
    """llama.cpp's tiles take over at eight rows of an expert (patches/0004): those of a batch of eight tokens."""
    quantize = (kind, lambda weights: kernels.quantize(kind, weights))
    path = tiny_gguf.write(tmp_path / "experts.gguf", "llama", width=4, n_layer=3, experts=2, quantize=quantize)
    with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=64, n_threads=1)) as engine:
        assert engine.level >= abi.DRAFTS and engine.max_equal_rows == 8, engine.limit
        tokens = random_tokens(engine, 8)
        rows = append_all(engine, tokens)
        engine.advance(rows, engine.n_layer, True)
        together = [engine.logits(i).tobytes() for i in range(8)]
        engine.roll_back(0)
        alone = []
        for token in tokens:
            row = engine.append(token, -1)
            engine.advance([row], engine.n_layer, True)
            alone.append(engine.logits(0).tobytes())
            engine.commit(row)
        assert together == alone
