"""Lenses, distillation, predictors: they learn what they should, and shapes and folds are right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.calibration import distillation, exit_predictor_training, lens_fitting
from specee.predictors.calibration.lens_fitting import Moments
from specee.predictors.exits.features import feature_vector, inverse_rms, sliced_logits, softmax
from specee.predictors.exits.lm_head import LMHead
from specee.predictors.exits.low_rank import LowRank


def test_ridge_recovers_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 32)).astype(np.float32)
    true = rng.normal(size=(32, 64)).astype(np.float32)
    y = x @ true + 0.5
    head = rng.normal(size=(100, 64)).astype(np.float32)
    model = lens_fitting.fit(Moments.of(x, y), 32, 1e-6, lens_fitting.head_metric(head))
    np.testing.assert_allclose(model(x), y, atol=1e-2)
    assert model.down.shape == (32, 32)
    assert not model.is_square
    rounded = model.rounded()
    assert np.abs(rounded(x) - y).max() < 0.5


def test_square_lens_keeps_no_second_matrix() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 500, 64)).astype(np.float32)
    model = lens_fitting.fit(Moments.of(x, y), 64, 0.01, lens_fitting.head_metric(x))
    turned = LowRank(model.down, 2 * np.eye(64, dtype=np.float32), model.bias).rounded()
    np.testing.assert_array_equal(turned.up, np.eye(64))
    np.testing.assert_allclose(turned.reduce(x), 2 * model.reduce(x), atol=0.05)


@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize("scaled", [True, False])
def test_gradients_of_distillation(scaled: bool, cap: float) -> None:
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((4, 6), (8, 4), (8,))]
    x = rng.normal(size=(5, 6)).astype(np.float32)
    head = LMHead(rng.normal(size=(10, 8)).astype(np.float32), rng.normal(size=10).astype(np.float32), cap)
    teacher = distillation.Teacher.of(rng.normal(size=(5, 8)).astype(np.float32), head, m=10)

    def loss() -> float:
        down, up, bias = (w.astype(np.float64) for w in weights)
        final = x @ down.T @ up.T + bias
        scale = 1 / np.sqrt(np.mean(final**2, 1, keepdims=True) + 1e-6) if scaled else 1.0
        logits = final @ head.rows.T * scale + head.constants
        logits = cap * np.tanh(logits) if cap else logits
        logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return float(-(np.take_along_axis(logp, teacher.place, 1) * teacher.prob).sum(1).mean())

    gradients = distillation._gradients(weights, x, teacher, head, scaled)
    for w, g in zip(weights, gradients, strict=True):
        flat = w.reshape(-1)
        for i in range(0, flat.size, 5):
            old = flat[i]
            flat[i] = old + 1e-3
            above = loss()
            flat[i] = old - 1e-3
            below = loss()
            flat[i] = old
            assert abs((above - below) / 2e-3 - g.reshape(-1)[i]) < 2e-3


def test_distillation_improves_tokens() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(50, 32)).astype(np.float32)
    head = LMHead(rows, np.zeros(50, np.float32))
    final = rng.normal(size=(2000, 32)).astype(np.float32)
    x = (final @ rng.normal(size=(32, 32)) + rng.normal(size=(2000, 32))).astype(np.float32)
    tokens = (final @ rows.T).argmax(1)
    start = lens_fitting.fit(Moments.of(x, final), 32, 3.0, lens_fitting.head_metric(rows))
    tuned = distillation.distill(start, x, distillation.Teacher.of(final, head), head, scaled=True, epochs=6, rate=3e-3)
    assert ((tuned(x) @ rows.T).argmax(1) == tokens).mean() > ((start(x) @ rows.T).argmax(1) == tokens).mean()


def test_predictor_learns_and_folds_its_scaling() -> None:
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(3000, 12)) * np.linspace(0.01, 30, 12) + 5).astype(np.float32)
    inside = np.abs((x[:, 3] - 5) / x[:, 3].std()) < 0.7
    held = np.arange(3000) % 5 == 0
    model = exit_predictor_training.train(x, inside, held, n_hidden=64)
    assert model.w1.shape == (64, 12)
    assert exit_predictor_training.auc(model(x[held]), inside[held]) > 0.95


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_auc_is_the_share_of_ordered_pairs(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, n).astype(np.float32)
    labels = rng.random(n) < 0.5
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    assert exit_predictor_training.auc(scores, labels) == pytest.approx(np.mean(pairs) if pairs else 0.5)


def test_features() -> None:
    rng = np.random.default_rng(5)
    final = rng.normal(size=(3, 8)).astype(np.float32)
    head = LMHead(rng.normal(size=(20, 8)).astype(np.float32), rng.normal(size=20).astype(np.float32), 30.0)
    place = rng.integers(0, 20, (3, 4))
    logits = sliced_logits(final, head, place)
    product = final[1] @ head.rows[place[1, 2]] * inverse_rms(final)[1, 0] + head.constants[place[1, 2]]
    np.testing.assert_allclose(logits[1, 2], 30.0 * np.tanh(product), rtol=1e-5)
    probs = softmax(logits)
    first = feature_vector(logits, probs, None)
    assert first.shape == (3, 12)
    np.testing.assert_allclose(first[:, 8:], probs - 0.25)
    np.testing.assert_array_equal(feature_vector(logits, probs, probs)[:, 8:], 0)
