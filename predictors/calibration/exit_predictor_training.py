"""Training of exit predictors.

Classes keep their natural shares, so that a score estimates the probability that an exit is right and one threshold
means the same at every exit layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.adam import Adam
from specee.predictors.exits.exit_predictor import ExitPredictor, sigmoid
from specee.predictors.types import Floats


def train(
    features: Floats,
    labels: NDArray[np.bool_],
    held: NDArray[np.bool_],
    n_hidden: int = 512,
    *,
    epochs: int = 40,
    patience: int = 4,
    batch: int = 256,
    rate: float = 2e-3,
    decay: float = 1e-3,
    seed: int = 0,
) -> ExitPredictor:
    """Binary cross-entropy on rows outside of `held`; stops when it no longer falls on `held`. features [n, n_in]."""
    rng = np.random.default_rng(seed)
    fit_x, held_x = features[~held], features[held]
    mean = fit_x.mean(0)
    spread = fit_x.std(0) + 1e-4
    x, y = (fit_x - mean) / spread, labels[~held].astype(np.float32)
    vx, vy = (held_x - mean) / spread, labels[held].astype(np.float32)
    n_in = features.shape[1]
    share = float(np.clip(y.mean() if len(y) else 0.5, 1e-3, 1 - 1e-3))
    weights = [
        rng.normal(0, (2 / n_in) ** 0.5, (n_hidden, n_in)).astype(np.float32),
        np.zeros(n_hidden, np.float32),
        rng.normal(0, (0.2 / n_hidden) ** 0.5, n_hidden).astype(np.float32),
        np.full(1, np.log(share / (1 - share)), np.float32),
    ]
    adam = Adam(weights)
    best, best_loss, waited = [w.copy() for w in weights], np.inf, 0
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        step_size = rate * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        for at in range(0, len(order), batch):
            rows = order[at : at + batch]
            adam.step(_gradients(weights, x[rows], y[rows]), [step_size] * len(weights))
            for w in weights:
                if w.ndim == 2:
                    w -= step_size * decay * w
        loss = _loss(weights, vx, vy) if len(vx) else _loss(weights, x, y)
        if loss < best_loss - 1e-5:
            best, best_loss, waited = [w.copy() for w in weights], loss, 0
        elif (waited := waited + 1) >= patience:
            break
    w1, b1, w2, b2 = best
    folded = w1 / spread
    return ExitPredictor(folded.astype(np.float32), (b1 - folded @ mean).astype(np.float32), w2, float(b2[0]))


def _gradients(weights: list[Floats], x: Floats, y: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    w1, b1, w2, b2 = weights
    hidden = np.maximum(x @ w1.T + b1, 0.0)  # [n, n_hidden]
    wrong = (sigmoid(hidden @ w2 + b2) - y) / len(y)  # [n]
    back = np.outer(wrong, w2) * (hidden > 0)
    return back.T @ x, back.sum(0), wrong @ hidden, np.array([wrong.sum()], np.float32)


def _loss(weights: list[Floats], x: Floats, y: Floats) -> float:
    w1, b1, w2, b2 = weights
    logits = np.maximum(x @ w1.T + b1, 0.0) @ w2 + b2
    return float(np.mean(np.logaddexp(0.0, logits) - y * logits))


def auc(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """Chance that a right row scores above a wrong one; 0.5 when there is only one kind."""
    n_true = int(labels.sum())
    n_false = len(labels) - n_true
    if not n_true or not n_false:
        return 0.5
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # mean rank of equal scores
    return float((rank[place][labels].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))
