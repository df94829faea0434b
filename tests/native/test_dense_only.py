"""An architecture that does not run in layer ranges: whole rows, and a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_gguf

from specee.native.engine import Model, RowEngine, Sampler
from specee.native.errors import NativeError


def test_whole_rows_only(tmp_path: Path) -> None:
    model = Model(tiny_gguf.write(tmp_path / "tiny.gguf", tiny_gguf.DENSE_ONLY))
    engine = RowEngine(model, n_ctx=256, n_threads=1)
    sampler = Sampler(model)
    assert model.unsupported is not None and tiny_gguf.DENSE_ONLY in model.unsupported
    engine.prefill([5, 6, 7, 8])
    words = []
    for _ in range(6):
        words.append(engine.greedy(0, sampler))
        engine.advance(engine.length, 1, engine.n_layer, tokens=[words[-1]], logits=True)
    last = engine.logits(0)
    with pytest.raises(NativeError, match="whole rows"):
        engine.advance(engine.length, 1, 2, tokens=[5])
    engine.roll_back(6)
    engine.prefill([5, 6, 7, 8, *words])
    assert np.corrcoef(engine.logits(0), last)[0, 1] > 0.999
    engine.close()
    model.close()
