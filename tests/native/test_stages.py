"""Rows of several stages at once, each in a range of layers of its own: what one after the other gives, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import GPU_LAYERS, append_all, kv_bytes, random_tokens
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specee.native.engine import Cancelled, Floats, Model, RowEngine
from specee.native.errors import NativeError

N_PROMPT = 250  # the answer's rows stand on both sides of the padding of the KV cache

property_test = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def whole(engine: RowEngine, tokens: list[int]) -> tuple[list[Floats], list[Floats]]:
    """Logits and final states of tokens after the prompt, each alone."""
    logits, states = [], []
    for token in tokens:
        states.append(engine.hidden(engine.forward(token)))
        logits.append(engine.logits(0))
    engine.roll_back(N_PROMPT)
    return logits, states


def cuts(engine: RowEngine, n: int) -> list[int]:
    """Where n stages end."""
    return [engine.n_layer * (i + 1) // n for i in range(n)]


@property_test
@given(data=st.data())
def test_stages_at_once_are_stages_one_after_the_other(engine: RowEngine, data: st.DataObject) -> None:
    engine.prefill(random_tokens(engine, N_PROMPT))
    ends = cuts(engine, data.draw(st.integers(2, min(4, engine.n_layer))))
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=5))
    tokens = random_tokens(engine, sum(sizes), seed=2)
    logits, states = whole(engine, tokens)
    rows = append_all(engine, tokens)
    batches = [rows[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
    for turn in range(len(batches) + len(ends) - 1):
        under_way = [(batch, ends[turn - i]) for i, batch in enumerate(batches) if 0 <= turn - i < len(ends)]
        engine.advance_stages(under_way, logits=True)
        assert all(engine.depth(row) == end for batch, end in under_way for row in batch)
        batch, end = under_way[0]
        if end == engine.n_layer:
            for i, row in enumerate(batch):
                assert np.array_equal(engine.logits(i), logits[rows.index(row)])
                assert np.array_equal(engine.hidden(row), states[rows.index(row)])
    engine.commit(rows[-1])
    kv = kv_bytes(engine)
    engine.roll_back(N_PROMPT)
    whole(engine, tokens)
    for token in tokens:
        engine.forward(token)
    assert kv_bytes(engine) == kv


def test_what_is_refused_changes_nothing(engine: RowEngine) -> None:
    engine.prefill(random_tokens(engine, N_PROMPT))
    tokens = random_tokens(engine, 2, seed=2)
    logits, _ = whole(engine, tokens)
    first, second = append_all(engine, tokens)
    half, n = engine.n_layer // 2, engine.n_layer
    engine.advance([first], half)
    refused = [
        ([([second], half), ([first], n)], "from the last layers to the first ones"),
        ([([first], n), ([second], half + 1)], "not that deep yet"),
        ([([first], n), ([second], 0)], "no such range"),
        ([([first], n), ([first], n)], "from the last layers to the first ones"),
        ([([first], n), ([second, 10**6], half)], "no such row"),
        ([], "no such number"),
    ]
    for batches, why in refused:
        with pytest.raises(NativeError, match=why):
            engine.advance_stages(batches, logits=True)
        assert (engine.depth(first), engine.depth(second)) == (half, 0)
    engine.advance_stages([([first], n), ([second], half)], logits=True)
    assert np.array_equal(engine.logits(0), logits[0])
    engine.advance([second], n, logits=True)
    assert np.array_equal(engine.logits(0), logits[1])


def test_after_a_cancel_the_rows_are_as_deep_as_before(engine: RowEngine) -> None:
    engine.prefill(random_tokens(engine, N_PROMPT))
    tokens = random_tokens(engine, 2, seed=2)
    logits, _ = whole(engine, tokens)
    first, second = append_all(engine, tokens)
    half, n = engine.n_layer // 2, engine.n_layer
    engine.advance([first], half)
    engine.cancel()
    with pytest.raises(Cancelled):
        engine.advance_stages([([first], n), ([second], half)], logits=True)
    engine.resume()
    assert (engine.depth(first), engine.depth(second)) == (half, 0)
    engine.advance_stages([([first], n), ([second], half)], logits=True)
    assert np.array_equal(engine.logits(0), logits[0])
    engine.advance([second], n, logits=True)
    assert np.array_equal(engine.logits(0), logits[1])


def test_graphs_under_way_are_kept(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though fewer graphs may be kept than there are stages."""
    monkeypatch.setattr("specee.native.context.GRAPH_CACHE_MAX", 1)
    engine = RowEngine(model, n_ctx=512, n_threads=1)
    engine.prefill(random_tokens(engine, N_PROMPT))
    tokens = random_tokens(engine, 3, seed=2)
    logits, _ = whole(engine, tokens)
    rows, (half, n) = append_all(engine, tokens), cuts(engine, 2)
    engine.advance(rows[:1], half)
    for i in range(2):
        engine.advance_stages([(rows[i : i + 1], n), (rows[i + 1 :][:1], half)], logits=True)
        assert np.array_equal(engine.logits(0), logits[i])
    engine.close()


def test_rows_stay_in_flight_when_those_before_are_committed(engine: RowEngine) -> None:
    engine.prefill(random_tokens(engine, N_PROMPT))
    tokens = random_tokens(engine, 4, seed=2)
    logits, _ = whole(engine, tokens)
    rows, (half, n) = append_all(engine, tokens[:3]), cuts(engine, 2)
    with pytest.raises(NativeError, match="complete it first"):
        engine.commit(rows[0], keep_rest=True)
    engine.advance(rows[:1], half)
    engine.advance_stages([(rows[:1], n), (rows[1:], half)], logits=True)
    engine.commit(rows[0], keep_rest=True)
    assert engine.length == N_PROMPT + 1 and engine.n_in_flight == 2 and engine.tip == rows[0]
    engine.advance(rows[1:], n, logits=True)
    assert all(np.array_equal(engine.logits(i), logits[1 + i]) for i in range(2))
    rows.append(engine.append(tokens[3], rows[-1]))
    engine.commit(rows[2], keep_rest=True)
    engine.advance(rows[3:], n, logits=True)
    assert np.array_equal(engine.logits(0), logits[3])
    engine.commit(rows[3], keep_rest=True)
    assert engine.tokens[N_PROMPT:] == tokens and engine.n_in_flight == 0
    last = engine.append(5)
    side = [engine.append(token) for token in (6, 7)]
    engine.advance([last, *side], n)
    with pytest.raises(NativeError, match="side rows do not stay"):
        engine.commit(last, keep_rest=True)
    engine.commit(last)
    assert engine.length == N_PROMPT + 5 and engine.n_in_flight == 0


@pytest.mark.skipif(GPU_LAYERS > 0, reason="some layers are on another device")
def test_one_device_is_one_stage(engine: RowEngine) -> None:
    assert engine.stages == (engine.n_layer,)
