"""The native probe against its NumPy twin, on random lenses, predictors and draft heads.

Tolerance: lens and shortlist multiply Q8_0 weights with vectors that are quantized to Q8_0 too (int8 with a scale for
32 values). Hidden states have a few channels 20 times as large as the rest, which coarsens the others of their block:
random weights (fitted ones are small there) then give logits that agree to a few percent of their spread.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from helpers import random_tokens, run_rows
from numpy.typing import NDArray

from specee.native import abi
from specee.native.engine import Floats, RowEngine, Sampler
from specee.native.errors import NativeError

K, RANK, N_HIDDEN, N_SHORT = 4, 32, 24, 48
EPS = 1e-5


def to_q8(weights: Floats) -> NDArray[np.uint8]:
    return quants.quantize(weights, GGMLQuantizationType.Q8_0)


def from_q8(blocks: NDArray[np.uint8]) -> Floats:
    return quants.dequantize(blocks, GGMLQuantizationType.Q8_0)


def rms_normalised(v: Floats) -> Floats:
    return v / np.sqrt((v * v).mean() + EPS)


def final_norm(engine: RowEngine, state: Floats) -> Floats:
    """As the model's last norm does it, without its weights."""
    centred, _ = engine.head_shape()
    return rms_normalised(state - state.mean() if centred else state)


def head_logits(engine: RowEngine, state: Floats, tokens: Any) -> Floats:
    """What the model's own head makes of a final state."""
    _, cap = engine.head_shape()
    logits = engine.head_rows(tokens) @ final_norm(engine, state) + engine.head_constants(tokens)
    return cap * np.tanh(logits) if cap else logits


class Twin:
    """Random weights, given to the engine and computed here in float32."""

    def __init__(self, engine: RowEngine, layer: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n = engine.n_embd

        def normal(*shape: int) -> Floats:
            return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

        self.engine, self.layer = engine, layer
        down, up, draft_down = to_q8(normal(RANK, n)), to_q8(normal(n, RANK)), to_q8(normal(RANK, 2 * n))
        short_up = to_q8(normal(N_SHORT, RANK) * 3)
        self.down, self.up, self.draft_down = from_q8(down), from_q8(up), from_q8(draft_down)
        self.short_up, self.bias = from_q8(short_up), normal(n)
        self.short_bias = normal(N_SHORT)
        self.tokens = np.sort(rng.choice(engine.n_vocab, N_SHORT, replace=False)).astype(np.int32)
        self.w1, self.b1, self.w2, self.b2 = normal(N_HIDDEN, 3 * K), normal(N_HIDDEN), normal(N_HIDDEN), 0.1
        engine.set_lens(layer, down, up, self.bias)
        engine.set_predictor(layer, self.w1, self.b1, self.w2, self.b2)
        engine.set_shortlist(self.tokens, to_q8(engine.head_rows(self.tokens)))
        engine.set_draft(draft_down, self.tokens, short_up, self.short_bias)

    def lens(self, hidden: Floats) -> tuple[Floats, Floats]:
        z = self.down @ rms_normalised(hidden)
        return z, self.up @ z + self.bias

    def logits(self, hidden: Floats, tokens: Floats) -> Floats:
        return head_logits(self.engine, self.lens(hidden)[1], tokens)

    def features(self, hidden: Floats, candidates: Floats, before: Floats) -> Floats:
        logits = self.logits(hidden, candidates)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        return np.concatenate([logits, p, p - before]).astype(np.float32)

    def score(self, features: Floats) -> float:
        logit = self.w2 @ np.maximum(self.w1 @ features + self.b1, 0) + self.b2
        return float(1 / (1 + np.exp(-logit)))


@pytest.fixture
def twin(engine: RowEngine) -> Twin:
    engine.prefill([int(t) for t in np.random.default_rng(4).integers(3, 90, 12)])
    return Twin(engine, engine.n_layer - 2)


def row_at(engine: RowEngine, layer: int, token: int = 5) -> int:
    """A new row in flight at this depth."""
    row = engine.append(token)
    engine.advance([row], layer)
    return row


def test_features_and_score(engine: RowEngine, twin: Twin) -> None:
    late = Twin(engine, engine.n_layer - 1, seed=1)
    candidates = twin.tokens[[3, 1, 20, 7]]
    row = row_at(engine, twin.layer)
    expected = twin.features(engine.hidden(row), candidates, np.full(K, 1 / K, np.float32))
    score, features = engine.features(row, candidates)
    tolerance = 0.06 * max(1.0, float(np.ptp(expected[:K])))
    assert np.allclose(features, expected, atol=tolerance)
    assert score == pytest.approx(twin.score(features), abs=1e-5)
    # the second probe of the row: changes since the first
    before = features[K : 2 * K]
    engine.advance([row], late.layer)
    expected = late.features(engine.hidden(row), candidates, before)
    score, features = engine.features(row, candidates)
    assert np.allclose(features, expected, atol=0.06 * max(1.0, float(np.ptp(expected[:K]))))
    assert score == pytest.approx(late.score(features), abs=1e-5)
    # another row starts anew
    engine.complete()
    engine.commit(row)
    _, features = engine.features(row_at(engine, twin.layer, 6), candidates)
    assert np.allclose(features[2 * K :], features[K : 2 * K] - 1 / K, atol=1e-6)


def test_rows_are_probed_together_as_alone(engine: RowEngine, twin: Twin) -> None:
    candidates = np.stack([twin.tokens[:K], twin.tokens[K : 2 * K]])
    tokens = random_tokens(engine, 2)

    def two_rows() -> list[int]:
        engine.roll_back(engine.length)
        rows = [engine.append(tokens[0])]
        rows.append(engine.append(tokens[1], rows[0]))
        engine.advance(rows, twin.layer)
        return rows

    expected = [engine.features(row, some) for row, some in zip(two_rows(), candidates, strict=True)]
    ids = (ctypes.c_int32 * 2)(*two_rows())
    scores, features = np.zeros(2, np.float32), np.zeros((2, 3 * K), np.float32)
    status = engine.lib.specee_rows_probe(
        engine._handle, 2, ids, K, abi.int32_p(candidates), abi.float_p(scores), abi.float_p(features)
    )
    assert status == abi.OK
    for i, (score, inputs) in enumerate(expected):
        assert scores[i] == score and np.array_equal(features[i], inputs)
    # one that cannot be probed: none is, and the next probe is still a first one
    ids[0], ids[1] = two_rows()[0], 10**6
    status = engine.lib.specee_rows_probe(engine._handle, 2, ids, K, abi.int32_p(candidates), abi.float_p(scores), None)
    assert status == abi.INVALID
    assert engine.features(ids[0], candidates[0])[0] == expected[0][0]


def test_what_was_seen_earlier_is_not_probed(engine: RowEngine, twin: Twin) -> None:
    """Not after the K and V were propagated, nor through a lens that was replaced since."""
    row = row_at(engine, twin.layer)
    engine.probe(row, twin.tokens[:K])
    again = Twin(engine, twin.layer)
    with pytest.raises(NativeError, match="no predictor"):
        engine.probe(row, again.tokens[:K])
    with pytest.raises(NativeError, match="no lens"):
        engine.lens_head(row)
    engine.roll_back(engine.length)
    row = row_at(engine, twin.layer)
    score = engine.probe(row, again.tokens[:K])
    assert 0 <= score <= 1
    engine.propagate_kv(row)
    with pytest.raises(NativeError, match=f"no predictor for {K} candidates at layer {engine.n_layer}"):
        engine.probe(row, again.tokens[:K])


def test_another_number_of_candidates_begins_anew(engine: RowEngine, twin: Twin) -> None:
    row = row_at(engine, twin.layer)
    engine.probe(row, twin.tokens[:K])
    rng = np.random.default_rng(3)
    w1, b1, w2 = (rng.standard_normal(shape).astype(np.float32) for shape in ((N_HIDDEN, 6), N_HIDDEN, N_HIDDEN))
    engine.set_predictor(twin.layer, w1, b1, w2, 0.0)
    _, features = engine.features(row, twin.tokens[:2])
    assert np.allclose(features[4:], features[2:4] - 0.5, atol=1e-6)


def test_the_full_head_sees_what_a_probe_sees(engine: RowEngine, twin: Twin) -> None:
    row = row_at(engine, twin.layer)
    candidates = twin.tokens[:K]
    _, features = engine.features(row, candidates)
    engine.lens_head(row)
    full = engine.logits(0)
    assert np.allclose(full[candidates], features[:K], atol=0.06 * max(1.0, float(np.ptp(full))))
    # a probe changes nothing: the row goes on as if there had been none
    engine.complete(logits=True)
    probed = engine.logits(0)
    engine.roll_back(engine.length)
    engine.forward(5)
    assert np.array_equal(engine.logits(0), probed)


def test_head_rows_are_the_heads_rows(engine: RowEngine, greedy: Sampler) -> None:
    """The whole head from its rows equals the logits that the graph computes (up to the kernel's Q8 activations)."""
    engine.prefill([5, 6, 7, 8])
    engine.forward(9)
    tokens = np.arange(0, engine.n_vocab, max(1, engine.n_vocab // 500), dtype=np.int32)
    ours = head_logits(engine, engine.hidden(engine.tip), tokens)
    theirs = engine.logits(0)[tokens]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_margin(engine: RowEngine, twin: Twin) -> None:
    row = engine.append(5)
    result = engine.run_to_exit(row, [twin.layer], 0, (), 1.0)
    logits = twin.logits(engine.hidden(row), twin.tokens)
    p = np.exp(logits - logits.max())
    p = np.sort(p / p.sum())
    token, lead = result.best, result.scores[0]
    assert logits[list(twin.tokens).index(token)] >= logits.max() - 0.05 * np.ptp(logits)
    assert lead == pytest.approx(p[-1] - p[-2], abs=0.08)


def test_draft(engine: RowEngine, twin: Twin) -> None:
    x = final_norm(engine, engine.hidden(engine.tip))  # the prompt's last row keeps its final state
    e = rms_normalised(engine.embedding_rows([5])[0])
    logits = twin.short_up @ (twin.draft_down @ np.concatenate([x, e])) + twin.short_bias
    drafted = engine.draft(engine.tip, 5, K)
    assert len(set(drafted.tolist())) == K
    found = logits[[list(twin.tokens).index(t) for t in drafted]]
    assert np.allclose(found, np.sort(logits)[::-1][:K], atol=0.05 * np.ptp(logits))
    # after an exit the lens stands in for the final state
    row = row_at(engine, twin.layer)
    _, h = twin.lens(engine.hidden(row))
    e = rms_normalised(engine.embedding_rows([6])[0])
    logits = twin.short_up @ (twin.draft_down @ np.concatenate([final_norm(engine, h), e])) + twin.short_bias
    in_flight = engine.draft(row, 6, K)
    engine.propagate_kv(row)
    assert np.array_equal(engine.draft(row, 6, K), in_flight)
    engine.commit(row)
    assert engine.tip == row and np.array_equal(engine.draft(engine.tip, 6, K), in_flight)
    found = logits[[list(twin.tokens).index(t) for t in in_flight]]
    assert np.allclose(found, np.sort(logits)[::-1][:K], atol=0.05 * np.ptp(logits))


def test_bad_weights_and_exits_are_refused(engine: RowEngine, twin: Twin) -> None:
    square = to_q8(np.zeros((engine.n_embd, engine.n_embd), np.float32))
    for layer in (0, engine.n_layer, -1):
        with pytest.raises(NativeError, match="inside the model"):
            engine.set_lens(layer, square, None, twin.bias)
        with pytest.raises(NativeError, match="needs a lens"):
            engine.set_predictor(layer, twin.w1, twin.b1, twin.w2, twin.b2)
    with pytest.raises(NativeError, match="vocabulary"):
        beyond = np.arange(engine.n_vocab - 15, engine.n_vocab + 1, dtype=np.int32)
        engine.set_shortlist(beyond, to_q8(np.zeros((16, engine.n_embd), np.float32)))
    row = row_at(engine, twin.layer)
    with pytest.raises(NativeError, match="no predictor for 3"):
        engine.probe(row, twin.tokens[:3])
    for layers, k in (([twin.layer], 0), ([1], 0), ([engine.n_layer], 0), ([engine.n_layer - 1] * 2, 0)):
        with pytest.raises(NativeError, match="ascend"):
            engine.run_to_exit(row, layers, k, (), 1.0)
    assert engine.depth(row) == twin.layer


def test_a_square_lens_has_one_matrix(engine: RowEngine, twin: Twin) -> None:
    rng = np.random.default_rng(8)
    n = engine.n_embd
    square = to_q8((rng.standard_normal((n, n)) / np.sqrt(n)).astype(np.float32))
    engine.set_lens(twin.layer, square, None, twin.bias)
    row = row_at(engine, twin.layer)
    h = from_q8(square) @ rms_normalised(engine.hidden(row)) + twin.bias
    expected = head_logits(engine, h, twin.tokens[:K])
    _, features = engine.features(row, twin.tokens[:K])
    assert np.allclose(features[:K], expected, atol=0.05 * max(1.0, float(np.ptp(expected))))


def test_a_run_to_an_exit_is_advance_and_probe(engine: RowEngine, twin: Twin) -> None:
    """One call through several layers gives what single steps give, and rows with deferred layers join."""
    late = Twin(engine, engine.n_layer - 1, seed=1)
    candidates = twin.tokens[[3, 1, 20, 7]]
    layers, start = [twin.layer, late.layer], engine.length
    row = row_at(engine, twin.layer)
    expected = [engine.probe(row, candidates)]
    engine.advance([row], late.layer)
    expected.append(engine.probe(row, candidates))
    hidden = engine.hidden(row)
    engine.roll_back(start)
    row = engine.append(5)
    result = engine.run_to_exit(row, layers, K, candidates.tolist(), 1.0)
    assert (result.stop_index, list(result.scores), result.best) == (2, expected, -1)
    assert np.array_equal(engine.hidden(row), hidden)
    engine.roll_back(start)
    row = engine.append(5)
    result = engine.run_to_exit(row, layers, K, candidates.tolist(), expected[0] - 1e-4)
    assert (result.stop_index, list(result.scores), engine.depth(row)) == (0, expected[:1], twin.layer)
    # the next row passes this one, which joins
    second = engine.append(6, row)
    result = engine.run_to_exit(second, layers, K, candidates.tolist(), 1.0)
    assert result.stop_index == 2 and engine.depth(row) == engine.depth(second) == late.layer
    assert np.array_equal(engine.hidden(row), hidden)
    engine.complete(logits=True)
    both = [engine.logits(0), engine.logits(1)]
    engine.roll_back(start)
    run_rows(engine, [5, 6])
    assert all(np.array_equal(engine.logits(i), both[i]) for i in range(2))
    engine.roll_back(start)
    for i, token in enumerate((5, 6)):
        engine.forward(token)
        assert np.array_equal(engine.logits(0), both[i])
