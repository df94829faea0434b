"""The native probe against its NumPy twin, on random lenses, predictors and draft heads.

Tolerance: lens and shortlist multiply Q8_0 weights with vectors that are quantized to Q8_0 too (int8 with a scale for
32 values). Hidden states have a few channels 20 times as large as the rest, which coarsens the others of their block:
random weights (fitted ones are small there) then give logits that agree to a few percent of their spread.
"""

from __future__ import annotations

import numpy as np
import pytest

from specee.native.engine import Floats, RowEngine, Sampler
from specee.native.errors import NativeError
from specee.predictors.quant import from_q8, to_q8

K, RANK, N_HIDDEN, N_SHORT = 4, 32, 24, 48
EPS = 1e-5


def rms_normalised(v: Floats) -> Floats:
    return v / np.sqrt((v * v).mean() + EPS)


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
        return self.engine.head_rows(tokens) @ rms_normalised(self.lens(hidden)[1])

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


def test_features_and_score(engine: RowEngine, twin: Twin) -> None:
    late = Twin(engine, engine.n_layer - 1, seed=1)
    candidates = twin.tokens[[3, 1, 20, 7]]
    pos = engine.length
    engine.advance(pos, 1, twin.layer, tokens=[5])
    expected = twin.features(engine.hidden(pos), candidates, np.full(K, 1 / K, np.float32))
    score, features = engine.features(pos, candidates)
    tolerance = 0.06 * max(1.0, float(np.ptp(expected[:K])))
    assert np.allclose(features, expected, atol=tolerance)
    assert score == pytest.approx(twin.score(features), abs=1e-5)
    # the second probe of the row: changes since the first
    before = features[K : 2 * K]
    engine.advance(pos, 1, late.layer)
    expected = late.features(engine.hidden(pos), candidates, before)
    score, features = engine.features(pos, candidates)
    assert np.allclose(features, expected, atol=0.06 * max(1.0, float(np.ptp(expected[:K]))))
    assert score == pytest.approx(late.score(features), abs=1e-5)
    # another row starts anew
    engine.advance(pos, 1, engine.n_layer)
    engine.advance(pos + 1, 1, twin.layer, tokens=[6])
    _, features = engine.features(pos + 1, candidates)
    assert np.allclose(features[2 * K :], features[K : 2 * K] - 1 / K, atol=1e-6)


def test_the_full_head_sees_what_the_sliced_head_sees(engine: RowEngine, twin: Twin) -> None:
    pos = engine.length
    engine.advance(pos, 1, twin.layer, tokens=[5])
    candidates = twin.tokens[:K]
    _, features = engine.features(pos, candidates)
    engine.lens_head(pos)
    full = engine.logits(0)
    assert np.allclose(full[candidates], features[:K], atol=0.06 * max(1.0, float(np.ptp(full))))
    # looking changed nothing: the row goes on as if it had not been looked at
    engine.advance(pos, 1, engine.n_layer, logits=True)
    looked = engine.logits(0)
    engine.roll_back(pos)
    engine.advance(pos, 1, engine.n_layer, tokens=[5], logits=True)
    assert np.array_equal(engine.logits(0), looked)


def test_head_rows_are_the_heads_rows(engine: RowEngine, greedy: Sampler) -> None:
    """The whole head from its rows equals the logits that the graph computes (up to the kernel's Q8 activations)."""
    engine.prefill([5, 6, 7, 8])
    engine.advance(4, 1, engine.n_layer, tokens=[9], logits=True)
    tokens = np.arange(0, engine.n_vocab, max(1, engine.n_vocab // 500), dtype=np.int32)
    ours = engine.head_rows(tokens) @ rms_normalised(engine.hidden(4))
    theirs = engine.logits(0)[tokens]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_margin(engine: RowEngine, twin: Twin) -> None:
    pos = engine.length
    seen = engine.rise(5, [twin.layer], 0, (), 1.0)
    logits = twin.logits(engine.hidden(pos), twin.tokens)
    p = np.exp(logits - logits.max())
    p = np.sort(p / p.sum())
    token, lead = seen.best, seen.scores[0]
    assert logits[list(twin.tokens).index(token)] >= logits.max() - 0.05 * np.ptp(logits)
    assert lead == pytest.approx(p[-1] - p[-2], abs=0.08)


def test_draft(engine: RowEngine, twin: Twin) -> None:
    pos = engine.length
    x = rms_normalised(engine.hidden(pos - 1))  # the prompt's last row keeps its final state
    e = rms_normalised(engine.embedding_rows([5])[0])
    logits = twin.short_up @ (twin.draft_down @ np.concatenate([x, e])) + twin.short_bias
    drafted = engine.draft(pos, 5, K)
    assert len(set(drafted.tolist())) == K
    found = logits[[list(twin.tokens).index(t) for t in drafted]]
    assert np.allclose(found, np.sort(logits)[::-1][:K], atol=0.05 * np.ptp(logits))
    # after an exit the lens stands in for the final state
    engine.advance(pos, 1, twin.layer, tokens=[5])
    engine.propagate(pos, 1)
    _, h = twin.lens(engine.hidden(pos))
    e = rms_normalised(engine.embedding_rows([6])[0])
    logits = twin.short_up @ (twin.draft_down @ np.concatenate([rms_normalised(h), e])) + twin.short_bias
    found = logits[[list(twin.tokens).index(t) for t in engine.draft(pos + 1, 6, K)]]
    assert np.allclose(found, np.sort(logits)[::-1][:K], atol=0.05 * np.ptp(logits))


def test_bad_weights_are_refused(engine: RowEngine, twin: Twin) -> None:
    with pytest.raises(NativeError, match="inside the model"):
        engine.set_lens(
            engine.n_layer, to_q8(np.zeros((32, 32), np.float32)), to_q8(np.zeros((32, 32), np.float32)), twin.bias
        )
    with pytest.raises(NativeError, match="vocabulary"):
        beyond = np.arange(engine.n_vocab - 15, engine.n_vocab + 1, dtype=np.int32)
        engine.set_shortlist(beyond, to_q8(np.zeros((16, engine.n_embd), np.float32)))
    with pytest.raises(NativeError, match="no predictor for 3"):
        engine.advance(engine.length, 1, twin.layer, tokens=[5])
        engine.probe(engine.length - 1, twin.tokens[:3])


def test_a_square_lens_has_one_matrix(engine: RowEngine, twin: Twin) -> None:
    rng = np.random.default_rng(8)
    n = engine.n_embd
    square = to_q8((rng.standard_normal((n, n)) / np.sqrt(n)).astype(np.float32))
    engine.set_lens(twin.layer, square, None, twin.bias)
    pos = engine.length
    engine.advance(pos, 1, twin.layer, tokens=[5])
    h = from_q8(square) @ rms_normalised(engine.hidden(pos)) + twin.bias
    expected = engine.head_rows(twin.tokens[:K]) @ rms_normalised(h)
    _, features = engine.features(pos, twin.tokens[:K])
    assert np.allclose(features[:K], expected, atol=0.05 * max(1.0, float(np.ptp(expected))))


def test_rise_is_advance_and_probe(engine: RowEngine, twin: Twin) -> None:
    """One call through several layers says what single steps say, with waiting rows coming along."""
    late = Twin(engine, engine.n_layer - 1, seed=1)
    candidates = twin.tokens[[3, 1, 20, 7]]
    layers = [twin.layer, late.layer]
    pos = engine.length
    engine.advance(pos, 1, twin.layer, tokens=[5])
    expected = [engine.probe(pos, candidates)]
    engine.advance(pos, 1, late.layer)
    expected.append(engine.probe(pos, candidates))
    hidden = engine.hidden(pos)
    engine.roll_back(pos)
    seen = engine.rise(5, layers, K, candidates.tolist(), 1.0)
    assert (seen.stopped, list(seen.scores)) == (2, expected)
    assert np.array_equal(engine.hidden(pos), hidden)
    engine.roll_back(pos)
    seen = engine.rise(5, layers, K, candidates.tolist(), expected[0] - 1e-4)
    assert (seen.stopped, list(seen.scores), engine.depth(pos)) == (0, expected[:1], twin.layer)
    # the next row passes this one, which joins
    seen = engine.rise(6, layers, K, candidates.tolist(), 1.0)
    assert seen.stopped == 2 and engine.depth(pos) == engine.depth(pos + 1) == late.layer
    assert np.array_equal(engine.hidden(pos), hidden)
    engine.advance(pos, 2, engine.n_layer, logits=True)
    both = [engine.logits(0), engine.logits(1)]
    engine.roll_back(pos)
    for row, token in enumerate((5, 6)):
        engine.advance(pos + row, 1, engine.n_layer, tokens=[token], logits=True)
        assert np.array_equal(engine.logits(0), both[row])
