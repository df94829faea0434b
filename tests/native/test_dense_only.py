"""An architecture that does not run in ranges of layers: whole rows, and a reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
from helpers import append_all, run_rows

from specee.native.engine import Cancelled, Model, RowEngine, Sampler, advance_together
from specee.native.errors import NativeError

PROMPT = [5, 6, 7, 8]


@pytest.fixture
def dense(tmp_path: Path) -> Iterator[RowEngine]:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", tiny_gguf.DENSE_ONLY)
    with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=256, n_threads=1)) as engine:
        engine.prefill(PROMPT)
        yield engine


def test_whole_rows(dense: RowEngine) -> None:
    assert dense.model.unsupported is not None and tiny_gguf.DENSE_ONLY in dense.model.unsupported
    sampler = Sampler(dense.model)
    tokens = []
    for _ in range(6):
        tokens.append(dense.greedy(0, sampler))
        dense.forward(tokens[-1])
    last = dense.logits(0)
    dense.roll_back(6)
    dense.prefill([*PROMPT, *tokens])
    assert np.corrcoef(dense.logits(0), last)[0, 1] > 0.999
    dense.roll_back(len(PROMPT))
    run_rows(dense, tokens)
    assert dense.tokens == [*PROMPT, *tokens] and np.corrcoef(dense.logits(5), last)[0, 1] > 0.999
    sampler.close()


def test_rows_are_dropped_and_committed_in_part(dense: RowEngine) -> None:
    dense.forward(9)
    expected = dense.logits(0)
    dense.roll_back(len(PROMPT))
    rows = append_all(dense, [9, 10, 11])
    dense.advance(rows[:2], dense.n_layer)
    dense.roll_back(len(PROMPT))
    rows = append_all(dense, [9, 10, 11])
    with pytest.raises(NativeError, match="in order of position"):
        dense.advance([rows[1], rows[0]], dense.n_layer)
    dense.advance(rows[:2], dense.n_layer, logits=True)
    assert np.corrcoef(dense.logits(0), expected)[0, 1] > 0.999
    dense.commit(rows[0])
    assert (dense.tokens, dense.tip, dense.n_in_flight) == ([*PROMPT, 9], rows[0], 0)


def test_what_needs_ranges_of_layers_is_refused(dense: RowEngine) -> None:
    row = dense.append(5)
    vector = np.zeros(dense.n_embd, np.float32)
    for call in (
        lambda: dense.advance([row], 2),
        lambda: dense.run_to_exit(row, [2], 0, (), 1.0),
        lambda: dense.probe(row, np.arange(4, dtype=np.int32)),
        lambda: dense.lens_head(dense.tip),
        lambda: dense.draft(dense.tip, 5, 4),
        lambda: dense.embedding_rows([5]),
        lambda: dense.head_rows([5]),
        lambda: dense.set_lens(2, np.zeros((32, 68), np.uint8), np.zeros((64, 34), np.uint8), vector),
    ):
        with pytest.raises(NativeError, match="whole rows"):
            call()
    with pytest.raises(NativeError, match="not kept"):
        dense.hidden(dense.tip)
    dense.advance([row], dense.n_layer)
    dense.commit(row)
    assert dense.tokens == [*PROMPT, 5]


def test_several_slots(dense: RowEngine) -> None:
    """Whole rows of several slots in one batch: each has the bits that it has alone."""
    answers = [[9, 10], [11, 12, 13], [14]]
    expected = []
    for tokens in answers:
        for token in tokens:
            dense.forward(token)
            expected.append(dense.logits(0))
        dense.roll_back(len(PROMPT))
    with closing(RowEngine(dense.model, n_ctx=256, n_slots=4, n_threads=1)) as engine:
        slots = [engine.slots[i] for i in (2, 0, 3)]
        for slot in slots:
            slot.prefill(PROMPT)
        batches = [(slot, append_all(slot, tokens)) for slot, tokens in zip(slots, answers, strict=True)]
        engine.cancel()
        with pytest.raises(Cancelled):
            advance_together(batches, engine.n_layer, logits=True)
        engine.resume()
        advance_together(batches, engine.n_layer, logits=True)
        found = [slot.logits(i) for slot, rows in batches for i in range(len(rows))]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        for slot, rows in batches:
            slot.commit(rows[-1])
        assert [slot.tokens[len(PROMPT) :] for slot in slots] == answers
        row = engine.append(5)
        with pytest.raises(NativeError, match="whole rows"):
            engine.append(6)
        assert engine.n_in_flight == 1 and engine.depth(row) == 0
