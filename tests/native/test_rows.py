"""Rows in flight give what whole tokens give: split, deferred, batched, dropped.

Tolerance: none. A split runs the same kernels on the same numbers, and up to 8 rows at once give each row the bits that
it has alone (patches/0004; test_small_batch.py has the quantized types). So everything here is compared for equality.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers import ROUNDING, append_all, kv_bytes, random_tokens
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specee.native.engine import Cancelled, Floats, Model, RowEngine, Sampler
from specee.native.errors import NativeError

N_PROMPT, N_ANSWER = 12, 16

property_test = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def whole(engine: RowEngine, tokens: list[int]) -> Floats:
    """Logits of every token after the prompt, each by plain decoding: [n, n_vocab]."""
    engine.roll_back(N_PROMPT)
    rows = []
    for token in tokens:
        engine.forward(token)
        rows.append(engine.logits(0))
    return np.array(rows)


@pytest.fixture
def answer(engine: RowEngine) -> list[int]:
    engine.prefill(random_tokens(engine, N_PROMPT))
    return random_tokens(engine, N_ANSWER, seed=2)


def test_plain_decoding_is_what_llama_decode_gives(engine: RowEngine, answer: list[int]) -> None:
    ours = whole(engine, answer)
    assert engine.tokens[N_PROMPT:] == answer and engine.n_in_flight == 0
    engine.roll_back(N_PROMPT)
    for i, token in enumerate(answer):
        engine.prefill([*engine.tokens, token])
        assert np.array_equal(engine.logits(0), ours[i])


def test_a_prompt_keeps_the_final_state_of_its_last_token(engine: RowEngine) -> None:
    """Of one of several batches too; llama.cpp plans the memory of its graphs before we mark what is read."""
    for n in (2, 40, 100):
        tokens = random_tokens(engine, n)
        engine.roll_back(0)
        engine.prefill(tokens)
        state = engine.hidden(engine.tip)
        engine.roll_back(n - 1)
        engine.forward(tokens[-1])
        assert np.abs(state - engine.hidden(engine.tip)).max() < ROUNDING * np.abs(state).max()


@property_test
@given(data=st.data())
def test_split_at_any_layers(engine: RowEngine, data: st.DataObject) -> None:
    engine.prefill(random_tokens(engine, N_PROMPT))
    answer = random_tokens(engine, 4, seed=data.draw(st.integers(0, 99)))
    expected = whole(engine, answer)
    hidden = engine.hidden(engine.tip)
    engine.roll_back(N_PROMPT)
    cuts = sorted(data.draw(st.sets(st.integers(1, engine.n_layer - 1))))
    for i, token in enumerate(answer):
        row = engine.append(token)
        assert engine.depth(row) == 0
        for _, end in pairwise([0, *cuts, engine.n_layer]):
            engine.advance([row], end, logits=end == engine.n_layer)
            assert engine.depth(row) == end
        engine.commit(row)
        assert np.array_equal(engine.logits(0), expected[i])
    assert np.array_equal(engine.hidden(engine.tip), hidden)


class Schedule:
    """A random course of one conversation: rows in flight as this test expects them, beside those of the engine."""

    def __init__(self, engine: RowEngine, data: st.DataObject) -> None:
        self.engine, self.data = engine, data
        engine.prefill(random_tokens(engine, N_PROMPT))
        self.answer = random_tokens(engine, N_ANSWER, seed=data.draw(st.integers(0, 99)))
        self.expected = whole(engine, self.answer)
        engine.roll_back(N_PROMPT)
        self.n = 0  # committed tokens of the answer
        self.rows: list[int] = []
        self.depths: list[int] = []
        self.newest = -1

    def draw(self, low: int, high: int) -> int:
        return int(self.data.draw(st.integers(low, high)))

    def check_logits(self, which: list[int]) -> None:
        for i, at in enumerate(which):
            assert np.array_equal(self.engine.logits(i), self.expected[self.n + at])

    def append(self) -> None:
        if self.n + len(self.rows) < N_ANSWER and len(self.rows) < self.engine.max_equal_rows:
            row = self.engine.append(self.answer[self.n + len(self.rows)], self.rows[-1] if self.rows else -1)
            assert row > self.newest  # ascending, never used twice
            self.newest = row
            self.rows.append(row)
            self.depths.append(0)

    def advance(self) -> None:
        """Some rows of one depth, as far as the rows before them allow."""
        if not self.rows:
            return
        depth = self.data.draw(st.sampled_from(self.depths))
        same = [i for i, d in enumerate(self.depths) if d == depth]
        start = self.draw(0, len(same) - 1)
        batch = same[start : self.draw(start, len(same) - 1) + 1]
        limit = min([d for i, d in enumerate(self.depths[: batch[-1]]) if i not in batch], default=self.engine.n_layer)
        if limit <= depth:
            return
        end = self.draw(depth + 1, limit)
        logits = end == self.engine.n_layer and self.data.draw(st.booleans())
        self.engine.advance([self.rows[i] for i in batch], end, logits)
        for i in batch:
            self.depths[i] = end
        if logits:
            self.check_logits(batch)

    def complete(self) -> None:
        incomplete = [i for i, d in enumerate(self.depths) if d < self.engine.n_layer]
        logits = self.data.draw(st.booleans())
        self.engine.complete(logits)
        self.depths = [self.engine.n_layer] * len(self.rows)
        if logits:
            self.check_logits(incomplete)

    def run_to_exit(self) -> None:
        layers = [layer for layer in exit_layers(self.engine) if not self.depths or layer > self.depths[-1]]
        if not self.rows or not layers:
            return
        threshold = self.data.draw(st.sampled_from([-1.0, 2.0]))  # at the first exit, or at none
        result = self.engine.run_to_exit(self.rows[-1], layers, 0, (), threshold)
        assert result.stop_index == (0 if threshold < 0 else len(layers)) and len(result.scores) >= 1
        reached = layers[0] if threshold < 0 else layers[-1]
        self.depths = [max(depth, reached) for depth in self.depths]

    def commit(self) -> None:
        n = next((i for i, d in enumerate(self.depths) if d < self.engine.n_layer), len(self.depths))
        if n > 0:
            n = self.draw(1, n)
            self.engine.commit(self.rows[n - 1])
            assert self.engine.tip == self.rows[n - 1]
            self.n += n
            self.rows, self.depths = [], []

    def roll_back(self) -> None:
        if self.data.draw(st.booleans()):
            self.n = self.draw(0, self.n)
        self.engine.roll_back(N_PROMPT + self.n)
        self.rows, self.depths = [], []

    def run(self) -> None:
        """At the end nothing is in flight."""
        actions = ["append"] * 3 + ["advance"] * 3 + ["run_to_exit", "complete", "commit", "roll_back"]
        for action in self.data.draw(st.lists(st.sampled_from(actions), min_size=10, max_size=40)):
            getattr(self, action)()
            assert [self.engine.depth(row) for row in self.rows] == self.depths
            assert self.engine.length == N_PROMPT + self.n and self.engine.n_in_flight == len(self.rows)
        self.complete()
        self.commit()


def exit_layers(engine: RowEngine) -> list[int]:
    return [engine.n_layer - 3, engine.n_layer - 2]


@pytest.fixture
def with_exits(engine: RowEngine) -> RowEngine:
    """Lenses whose estimates mean nothing: what is computed beside a row must not change it."""
    n = engine.n_embd
    zeros = np.zeros((n, n // 32 * 34), np.uint8)
    for layer in exit_layers(engine):
        engine.set_lens(layer, zeros, None, np.ones(n, np.float32))
    engine.set_shortlist(np.arange(32, dtype=np.int32), zeros[:32])
    return engine


@property_test
@given(data=st.data())
def test_random_schedules(with_exits: RowEngine, data: st.DataObject) -> None:
    """Logits and K/V are those of plain decoding, whatever happened on the way."""
    engine = with_exits
    schedule = Schedule(engine, data)
    schedule.run()
    tokens = schedule.answer[: schedule.n]
    assert engine.tokens[N_PROMPT:] == tokens
    found = kv_bytes(engine)
    engine.forward(5)
    after = engine.logits(0)
    engine.roll_back(N_PROMPT)
    for token in tokens:
        engine.forward(token)
    assert found == kv_bytes(engine)
    engine.forward(5)
    assert np.array_equal(engine.logits(0), after)


def test_dropped_rows_leave_no_trace(engine: RowEngine, answer: list[int]) -> None:
    expected = whole(engine, answer)
    engine.roll_back(N_PROMPT)
    first = engine.append(7)
    second = engine.append(8, first)
    engine.advance([first], 3)
    engine.advance([second], 2)
    engine.roll_back(N_PROMPT)
    assert engine.depth(first) == engine.depth(second) == -1
    assert np.array_equal(whole(engine, answer), expected)


def test_a_commit_drops_what_comes_after(engine: RowEngine, answer: list[int]) -> None:
    expected = whole(engine, answer[:3])
    engine.roll_back(N_PROMPT)
    rows = append_all(engine, [*answer[:2], 7, 8])
    engine.advance(rows[:3], engine.n_layer)
    engine.commit(rows[1])
    assert (engine.tokens[N_PROMPT:], engine.n_in_flight, engine.tip) == (answer[:2], 0, rows[1])
    assert [engine.depth(row) for row in rows] == [engine.n_layer] * 2 + [-1] * 2
    engine.forward(answer[2])
    assert np.array_equal(engine.logits(0), expected[2])


def test_the_tip_is_the_last_committed_row(engine: RowEngine, answer: list[int]) -> None:
    prompt = engine.tip
    assert engine.depth(prompt) == engine.n_layer and np.isfinite(engine.hidden(prompt)).all()
    tips = []
    for token in answer[:4]:
        engine.forward(token)
        tips.append(engine.tip)
    assert tips == sorted({prompt, *tips})[1:]
    state = engine.hidden(tips[1])
    engine.roll_back(N_PROMPT + 2)
    assert engine.tip == tips[1] and np.array_equal(engine.hidden(engine.tip), state)
    assert [engine.depth(row) for row in tips[2:]] == [-1, -1]
    engine.roll_back(N_PROMPT)
    assert engine.tip == prompt
    engine.roll_back(N_PROMPT - 1)
    assert engine.tip == -1  # a token inside of the prompt: its state was never known


def test_a_full_batch_of_rows_is_readable_at_each_depth(engine: RowEngine, answer: list[int]) -> None:
    """As calibration does it: more rows than have equal bits, so their values agree up to rounding."""
    tokens = random_tokens(engine, 64, seed=5)
    expected = {}
    for end in (2, engine.n_layer - 1, engine.n_layer):
        engine.roll_back(N_PROMPT)
        for token in tokens:
            row = engine.append(token)
            engine.advance([row], end)
            expected[end, row] = engine.hidden(row)
            engine.complete()
            engine.commit(row)
    engine.roll_back(N_PROMPT)
    rows = append_all(engine, tokens)
    for end in (2, engine.n_layer - 1, engine.n_layer):
        engine.advance(rows, end, logits=end == engine.n_layer)
        singles = [state for (at, _), state in expected.items() if at == end]
        for row, single in zip(rows, singles, strict=True):
            assert np.corrcoef(engine.hidden(row), single)[0, 1] > 1 - ROUNDING / 10
    assert engine.logits(63).shape == (engine.n_vocab,)


def test_the_prompts_common_part_is_kept(engine: RowEngine) -> None:
    first = random_tokens(engine, 40)
    assert engine.prefill(first) == 0
    second = [*first[:30], *random_tokens(engine, 8, seed=5)]
    engine.append(5)  # dropped
    assert engine.prefill(second) == 30
    assert engine.n_in_flight == 0
    reused = engine.logits(0)
    engine.roll_back(0)
    assert engine.prefill(second) == 0
    # another batch shape: rounding apart, the same
    assert np.corrcoef(reused, engine.logits(0))[0, 1] > 0.98
    assert engine.prefill(second) == len(second) - 1


def test_propagation_writes_every_layer(engine: RowEngine, answer: list[int]) -> None:
    end = engine.n_layer - 2
    for token in answer:
        row = engine.append(token)
        engine.advance([row], end)
        at_exit = engine.hidden(row)
        engine.propagate_kv(row)
        assert engine.depth(row) == engine.n_layer
        assert np.array_equal(engine.hidden(row), at_exit)
        engine.commit(row)
    engine.forward(5)
    approximate = engine.logits(0)
    engine.roll_back(N_PROMPT)
    exact = whole(engine, [*answer, 5])[-1]
    assert np.isfinite(approximate).all() and not np.array_equal(approximate, exact)
    # the last two layers' K/V alone come from an earlier state
    assert np.corrcoef(approximate, exact)[0, 1] > 0.9


def test_propagation_of_one_row_leaves_the_others(engine: RowEngine, answer: list[int]) -> None:
    """Only the propagated row's K/V change: rows before it compute what they computed without it."""
    expected = whole(engine, answer[:2])
    engine.roll_back(N_PROMPT)
    rows = append_all(engine, answer[:3])
    for row in rows:
        engine.advance([row], 2)
    engine.propagate_kv(rows[2])
    engine.complete(logits=True)  # of those that still have deferred layers
    for i in range(2):
        assert np.array_equal(engine.logits(i), expected[i])
    with pytest.raises(NativeError, match="no such row of logits"):
        engine.logits(2)
    engine.commit(rows[2])
    assert engine.tokens[N_PROMPT:] == answer[:3]


def test_a_plain_decode_is_refused_while_layers_are_deferred(engine: RowEngine, answer: list[int]) -> None:
    llama = engine.model.llama
    row = engine.append(5)
    engine.advance([row], 2)
    batch = llama.llama_batch_init(1, 0, 1)
    batch.n_tokens, batch.token[0], batch.pos[0], batch.n_seq_id[0], batch.logits[0] = 1, 5, N_PROMPT + 1, 1, 1
    batch.seq_id[0][0] = 0
    assert llama.llama_decode(engine._context, batch) != 0
    assert llama.llama_state_get_data(engine._context, None, 0) == 0
    engine.complete()
    engine.commit(row)
    llama.llama_batch_free(batch)


def test_cancel_and_resume(engine: RowEngine, answer: list[int]) -> None:
    expected = whole(engine, answer[:2])
    engine.roll_back(N_PROMPT)
    engine.cancel()
    with pytest.raises(Cancelled):
        engine.prefill([*engine.tokens, *answer])
    with pytest.raises(Cancelled):
        engine.forward(answer[0])
    assert (engine.length, engine.n_in_flight) == (N_PROMPT, 0)
    rows = append_all(engine, answer[:2])
    with pytest.raises(Cancelled):
        engine.advance(rows[:1], 3)
    assert [engine.depth(row) for row in rows] == [0, 0]
    engine.resume()
    engine.advance(rows[:1], 3)
    engine.cancel()
    with pytest.raises(Cancelled):
        engine.complete()
    engine.resume()
    engine.complete(logits=True)
    for i in range(2):
        assert np.array_equal(engine.logits(i), expected[i])
    engine.roll_back(N_PROMPT)
    assert np.array_equal(whole(engine, answer[:2]), expected)


def test_a_full_window_is_refused(model: Model) -> None:
    engine = RowEngine(model, n_ctx=256, n_threads=1)
    try:
        engine.prefill(random_tokens(engine, 255))
        row = engine.append(5)
        with pytest.raises(NativeError, match="is full") as refused:
            engine.append(6, row)
        assert refused.value.title == "The window is full"
        engine.advance([row], 2)
        engine.complete()
        engine.commit(row)
        with pytest.raises(NativeError, match="is full"):
            engine.forward(5)
        assert (engine.length, engine.n_in_flight) == (256, 0)
    finally:
        engine.close()


def test_graphs_beyond_the_cache_are_rebuilt(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specee.native.context.GRAPH_CACHE_MAX", 2)
    engine = RowEngine(model, n_ctx=512, n_threads=1)
    try:
        engine.prefill(random_tokens(engine, N_PROMPT))
        answer = random_tokens(engine, 6, seed=3)
        expected = whole(engine, answer)
        for _ in range(2):
            engine.roll_back(N_PROMPT)
            for i, token in enumerate(answer):
                row = engine.append(token)
                for end in range(1, engine.n_layer + 1):
                    engine.advance([row], end, logits=end == engine.n_layer)
                engine.commit(row)
                assert np.array_equal(engine.logits(0), expected[i])
    finally:
        engine.close()


def test_greedy_and_distribution(engine: RowEngine, model: Model, answer: list[int], greedy: Sampler) -> None:
    logits = whole(engine, answer[:1])[0].astype(np.float64)
    assert engine.greedy(0, greedy) == logits.argmax()
    for options in ({"top_k": 5}, {"top_k": 0, "top_p": 1.0}):
        sampler = Sampler(model, temperature=0.7, **options)
        tokens, probs = engine.distribution(0, sampler)
        p = np.exp(logits / 0.7 - (logits / 0.7).max())
        p = p[tokens] / p[tokens].sum()
        assert np.allclose(probs, p, atol=1e-5) and np.isclose(probs.sum(), 1.0, atol=1e-4)
        assert len(tokens) == (options["top_k"] or engine.n_vocab)
        sampler.close()


def test_preselection_changes_nothing(engine: RowEngine, model: Model, answer: list[int]) -> None:
    whole(engine, answer[:1])
    sampler = Sampler(model, temperature=0.8, top_k=10, top_p=0.9, min_p=0.02, repeat_penalty=1.3, repeat_last_n=16)
    shaped = Sampler(model, repeat_penalty=1.5, repeat_last_n=16)
    for either in (sampler, shaped):
        either.rewind(answer)
    fast, fast_greedy = engine.distribution(0, sampler), engine.greedy(0, shaped)
    sampler.shaping.preselect = shaped.shaping.preselect = 0
    full, full_greedy = engine.distribution(0, sampler), engine.greedy(0, shaped)
    assert fast_greedy == full_greedy
    assert np.array_equal(fast[0], full[0]) and np.allclose(fast[1], full[1], atol=1e-6)
    sampler.close()
    shaped.close()
