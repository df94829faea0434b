"""Rows in flight say what whole tokens say: split, deferred, batched, rolled back.

Tolerance: none. A split runs the same kernels on the same numbers, and up to 8 rows at once give each row the bits that
it has alone (patches/0004; test_small_batch.py has the quantized types). So everything here is compared for equality.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specee.native.engine import Cancelled, Floats, Model, RowEngine, Sampler
from specee.native.errors import NativeError

N_PROMPT, N_ANSWER = 12, 16
MAX_BATCH = 8

property_test = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def text(engine: RowEngine, n: int, seed: int = 1) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(3, min(engine.n_vocab, 400), n)]


def whole(engine: RowEngine, tokens: list[int]) -> Floats:
    """Logits of every row, each run through all layers at once: [n, n_vocab]."""
    engine.roll_back(N_PROMPT)
    rows = []
    for token in tokens:
        engine.advance(engine.length, 1, engine.n_layer, tokens=[token], logits=True)
        rows.append(engine.logits(0))
    return np.array(rows)


@pytest.fixture
def answer(engine: RowEngine) -> list[int]:
    engine.prefill(text(engine, N_PROMPT))
    return text(engine, N_ANSWER, seed=2)


def test_the_whole_row_is_what_llama_decode_says(engine: RowEngine, answer: list[int]) -> None:
    ours = whole(engine, answer)
    engine.roll_back(N_PROMPT)
    for i, token in enumerate(answer):
        engine.prefill([*engine.tokens, token])
        assert np.array_equal(engine.logits(0), ours[i])


@property_test
@given(data=st.data())
def test_split_at_any_boundaries(engine: RowEngine, data: st.DataObject) -> None:
    engine.prefill(text(engine, N_PROMPT))
    answer = text(engine, 4, seed=data.draw(st.integers(0, 99)))
    expected = whole(engine, answer)
    hidden = engine.hidden(engine.length - 1)
    engine.roll_back(N_PROMPT)
    cuts = sorted(data.draw(st.sets(st.integers(1, engine.n_layer - 1))))
    for i, token in enumerate(answer):
        pos = engine.length
        for begin, end in pairwise([0, *cuts, engine.n_layer]):
            engine.advance(pos, 1, end, tokens=[token] if begin == 0 else None, logits=end == engine.n_layer)
            assert engine.depth(pos) == end
        assert np.array_equal(engine.logits(0), expected[i])
    assert np.array_equal(engine.hidden(engine.length - 1), hidden)


@property_test
@given(data=st.data())
def test_random_schedules(engine: RowEngine, data: st.DataObject) -> None:
    """Rows stop where they like (never deeper than an earlier one), some are settled early, some rolled back."""
    engine.prefill(text(engine, N_PROMPT))
    answer = text(engine, N_ANSWER, seed=data.draw(st.integers(0, 99)))
    expected = whole(engine, answer)
    engine.roll_back(N_PROMPT)
    pending: list[int] = []  # depths of the rows that wait, from the first on; never increasing

    def settle() -> None:
        end = engine.length
        while pending:
            depth = pending[-1]
            n = sum(d == depth for d in pending)
            target = pending[-n - 1] if n < len(pending) else engine.n_layer
            engine.advance(end - n, n, target, logits=target == engine.n_layer)
            pending[-n:] = [target] * n
            if target == engine.n_layer:
                for i in range(n):
                    assert np.array_equal(engine.logits(i), expected[end - n - N_PROMPT + i])
                pending.clear()

    while engine.length < N_PROMPT + N_ANSWER:
        done = engine.length - N_PROMPT
        choice = data.draw(st.sampled_from(["row", "row", "row", "settle", "roll back"]))
        if choice == "row":
            limit = min(pending, default=engine.n_layer - 1)
            pos, end = engine.length, data.draw(st.integers(1, limit))
            middle = data.draw(st.integers(1, end))
            engine.advance(pos, 1, middle, tokens=[answer[done]])
            if middle < end:
                engine.advance(pos, 1, end)
            pending.append(end)
        elif choice == "roll back" and pending:
            n = data.draw(st.integers(1, len(pending)))
            engine.roll_back(engine.length - n)
            del pending[-n:]
        if choice == "settle" or len(pending) == MAX_BATCH:
            settle()
    settle()
    engine.advance(engine.length, 1, engine.n_layer, tokens=[5], logits=True)
    after = engine.logits(0)
    engine.roll_back(N_PROMPT)
    assert np.array_equal(whole(engine, [*answer, 5])[-1], after)


def test_rolled_back_is_never_happened(engine: RowEngine, answer: list[int]) -> None:
    expected = whole(engine, answer)
    engine.roll_back(N_PROMPT)
    engine.advance(N_PROMPT, 1, 3, tokens=[7])
    engine.advance(N_PROMPT + 1, 1, 2, tokens=[8])
    engine.roll_back(N_PROMPT + 1)
    engine.roll_back(N_PROMPT)
    assert np.array_equal(whole(engine, answer), expected)


def test_the_prompts_common_part_is_kept(engine: RowEngine) -> None:
    first = text(engine, 40)
    assert engine.prefill(first) == 0
    second = [*first[:30], *text(engine, 8, seed=5)]
    assert engine.prefill(second) == 30
    reused = engine.logits(0)
    engine.roll_back(0)
    assert engine.prefill(second) == 0
    # another batch shape: rounding apart, the same
    assert np.corrcoef(reused, engine.logits(0))[0, 1] > 0.98
    assert engine.prefill(second) == len(second) - 1


def test_propagation_fills_every_layer(engine: RowEngine, answer: list[int]) -> None:
    end = engine.n_layer - 2
    for token in answer:
        pos = engine.length
        engine.advance(pos, 1, end, tokens=[token])
        at_exit = engine.hidden(pos)
        engine.propagate(pos, 1)
        assert engine.depth(pos) == engine.n_layer
        assert np.array_equal(engine.hidden(pos), at_exit)
    engine.advance(engine.length, 1, engine.n_layer, tokens=[5], logits=True)
    approximate = engine.logits(0)
    engine.roll_back(N_PROMPT)
    exact = whole(engine, [*answer, 5])[-1]
    assert np.isfinite(approximate).all() and not np.array_equal(approximate, exact)
    # the last two layers' K/V alone come from an earlier state
    assert np.corrcoef(approximate, exact)[0, 1] > 0.9


def test_propagation_of_one_row_leaves_the_others(engine: RowEngine, answer: list[int]) -> None:
    """Only the propagated row's K/V change: earlier rows compute what they computed before."""
    engine.advance(N_PROMPT, 1, engine.n_layer, tokens=[answer[0]], logits=True)
    expected = engine.logits(0)
    engine.advance(N_PROMPT + 1, 1, 2, tokens=[answer[1]])
    engine.propagate(N_PROMPT + 1, 1)
    engine.roll_back(N_PROMPT)
    engine.advance(N_PROMPT, 1, engine.n_layer, tokens=[answer[0]], logits=True)
    assert np.array_equal(engine.logits(0), expected)


def test_what_contradicts_the_state_is_refused(engine: RowEngine, answer: list[int]) -> None:
    with pytest.raises(NativeError, match="first free"):
        engine.advance(N_PROMPT + 1, 1, 2, tokens=[5])
    engine.advance(N_PROMPT, 1, 2, tokens=[5])
    with pytest.raises(NativeError, match="earlier row"):
        engine.advance(N_PROMPT + 1, 1, 3, tokens=[5])
    with pytest.raises(NativeError, match="settled"):
        engine.prefill([*engine.tokens, 6])
    with pytest.raises(NativeError, match="deep already"):
        engine.advance(N_PROMPT, 1, 1)
    with pytest.raises(NativeError, match="range of layers"):
        engine.advance(N_PROMPT, 1, engine.n_layer + 1)
    with pytest.raises(NativeError, match="no such token"):
        engine.advance(N_PROMPT + 1, 1, 2, tokens=[engine.n_vocab])
    with pytest.raises(NativeError, match="lens"):
        engine.lens_head(N_PROMPT)
    engine.advance(N_PROMPT, 1, engine.n_layer)  # none of this did harm
    assert engine.length == N_PROMPT + 1


def test_a_plain_decode_is_refused_while_rows_wait(engine: RowEngine, answer: list[int]) -> None:
    llama = engine.model.llama
    engine.advance(N_PROMPT, 1, 2, tokens=[5])
    batch = llama.llama_batch_init(1, 0, 1)
    batch.n_tokens, batch.token[0], batch.pos[0], batch.n_seq_id[0], batch.logits[0] = 1, 5, N_PROMPT + 1, 1, 1
    batch.seq_id[0][0] = 0
    assert llama.llama_decode(engine._context, batch) != 0
    assert llama.llama_state_get_data(engine._context, None, 0) == 0
    engine.advance(N_PROMPT, 1, engine.n_layer)
    llama.llama_batch_free(batch)


def test_cancel_and_resume(engine: RowEngine, answer: list[int]) -> None:
    expected = whole(engine, answer[:2])
    engine.roll_back(N_PROMPT)
    engine.cancel()
    with pytest.raises(Cancelled):
        engine.prefill([*engine.tokens, *answer])
    assert engine.length == N_PROMPT
    with pytest.raises(Cancelled):
        engine.advance(N_PROMPT, 1, 3, tokens=[answer[0]])
    assert engine.length == N_PROMPT
    engine.resume()
    assert np.array_equal(whole(engine, answer[:2]), expected)


def test_a_full_window_says_so(model: Model) -> None:
    engine = RowEngine(model, n_ctx=256, n_threads=1)
    try:
        engine.prefill(text(engine, 255))
        engine.advance(255, 1, 2, tokens=[5])
        engine.advance(255, 1, engine.n_layer)
        with pytest.raises(NativeError, match="full"):
            engine.advance(256, 1, 2, tokens=[5])
        assert engine.length == 256
    finally:
        engine.close()


def test_graphs_beyond_the_cache_are_rebuilt(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specee.native.engine.GRAPH_CACHE_MAX", 2)
    engine = RowEngine(model, n_ctx=512, n_threads=1)
    try:
        engine.prefill(text(engine, N_PROMPT))
        answer = text(engine, 6, seed=3)
        expected = whole(engine, answer)
        for _ in range(2):
            engine.roll_back(N_PROMPT)
            for i, token in enumerate(answer):
                for end in range(1, engine.n_layer + 1):
                    first, last = end == 1, end == engine.n_layer
                    engine.advance(N_PROMPT + i, 1, end, tokens=[token] if first else None, logits=last)
                assert np.array_equal(engine.logits(0), expected[i])
    finally:
        engine.close()


def test_greedy_and_distribution(engine: RowEngine, model: Model, answer: list[int], greedy: Sampler) -> None:
    logits = whole(engine, answer[:1])[0].astype(np.float64)
    assert engine.greedy(0, greedy) == logits.argmax()
    for options in ({"top_k": 5}, {"top_k": 0, "top_p": 1.0}):
        sampler = Sampler(model, temperature=0.7, **options)
        d = engine.distribution(0, sampler)
        p = np.exp(logits / 0.7 - (logits / 0.7).max())
        p = p[d.tokens] / p[d.tokens].sum()
        assert np.allclose(d.probs, p, atol=1e-5) and np.isclose(d.probs.sum(), 1.0, atol=1e-4)
        assert len(d.tokens) == (options["top_k"] or engine.n_vocab)
        sampler.close()


def test_preselection_changes_nothing(engine: RowEngine, model: Model, answer: list[int]) -> None:
    whole(engine, answer[:1])
    sampler = Sampler(model, temperature=0.8, top_k=10, top_p=0.9, min_p=0.02, repeat_penalty=1.3, repeat_last_n=16)
    shaped = Sampler(model, repeat_penalty=1.5, repeat_last_n=16)
    for said in (sampler, shaped):
        said.rewind(answer)
    fast, fast_greedy = engine.distribution(0, sampler), engine.greedy(0, shaped)
    sampler.preselect = shaped.preselect = 0
    full, full_greedy = engine.distribution(0, sampler), engine.greedy(0, shaped)
    assert fast_greedy == full_greedy
    assert np.array_equal(fast.tokens, full.tokens) and np.allclose(fast.probs, full.probs, atol=1e-6)
    sampler.close()
    shaped.close()
