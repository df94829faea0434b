"""Fine-tuning of a low-rank map for what it is used for: its tokens, not its distances.

Least squares spends rank on everything that moves the final state; distillation spends it on the tokens that the dense
model considers (the "tuned lens" of Belrose et al., 2023, with a bottleneck). Adam on the cross-entropy against the
dense model's distribution over the shortlist, started from the ridge solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.adam import Adam
from specee.predictors.exits.features import inverse_rms
from specee.predictors.exits.lm_head import LMHead
from specee.predictors.exits.low_rank import LowRank
from specee.predictors.types import Floats

_BATCH = 512


@dataclass(frozen=True, slots=True)
class Teacher:
    """The dense model's distribution on the shortlist, its most probable tokens only: [n, m] each."""

    place: NDArray[np.int32]
    prob: Floats

    @classmethod
    def of(cls, final: Any, head: LMHead, m: int = 32) -> Teacher:
        """final [n, n_embd] divided by its rms, in any float type."""
        n, m = len(final), min(m, len(head))
        place, prob = np.empty((n, m), np.int32), np.empty((n, m), np.float32)
        for at in range(0, n, _BATCH):
            logits = head.logits(np.asarray(final[at : at + _BATCH], np.float32) @ head.rows.T)
            top = np.argpartition(logits, -m, axis=1)[:, -m:]
            values = np.take_along_axis(logits, top, 1)
            values = np.exp(values - values.max(1, keepdims=True))
            place[at : at + _BATCH], prob[at : at + _BATCH] = top, values / values.sum(1, keepdims=True)
        return cls(place, prob)

    def __getitem__(self, rows: NDArray[np.int64]) -> Teacher:
        return Teacher(self.place[rows], self.prob[rows])


def distill(
    model: LowRank,
    x: Any,
    teacher: Teacher,
    head: LMHead,
    *,
    scaled: bool,
    epochs: int = 4,
    rate: float = 1e-3,
    seed: int = 0,
) -> LowRank:
    """x [n, n_in] in any float type. `scaled`: the products are divided by the output's rms."""
    rng = np.random.default_rng(seed)
    weights = [model.down.copy(), model.up.copy(), model.bias.copy()]
    sizes = [rate * float(np.abs(w).mean()) * 10 for w in weights[:2]] + [rate]
    adam = Adam(weights, beta=0.99, epsilon=1e-12)
    n, step = len(x), 0
    total = epochs * -(-n // _BATCH)
    for _ in range(epochs):
        order = rng.permutation(n)
        for at in range(0, n, _BATCH):
            rows = np.sort(order[at : at + _BATCH])
            step += 1
            gradients = _gradients(weights, np.asarray(x[rows], np.float32), teacher[rows], head, scaled)
            cool = 0.5 * (1 + np.cos(np.pi * step / total))
            adam.step(gradients, [cool * size for size in sizes])
    return LowRank(weights[0], weights[1], weights[2])


def _gradients(weights: list[Floats], x: Floats, teacher: Teacher, head: LMHead, scaled: bool) -> list[Floats]:
    """Of the mean cross-entropy, for down, up and bias."""
    down, up, bias = weights
    reduced = x @ down.T  # [n, rank]
    final: Floats = (reduced @ up.T + bias).astype(np.float32)  # [n, n_embd]
    scale = inverse_rms(final) if scaled else np.ones((len(x), 1), np.float32)
    logits = final @ head.rows.T
    logits *= scale
    logits = head.logits(logits)
    slope = head.slope(logits)
    logits -= logits.max(1, keepdims=True)
    np.exp(logits, out=logits)
    logits *= (1.0 / len(x)) / logits.sum(1, keepdims=True)
    rows = np.arange(len(x))[:, None]
    logits[rows, teacher.place] -= teacher.prob / len(x)  # d loss / d logits
    back = (logits * slope) @ head.rows  # [n, n_embd]
    if scaled:
        back = scale * (back - final * (np.sum(back * final, 1, keepdims=True) * scale**2 / final.shape[1]))
    return [(back @ up).T @ x, back.T @ reduced, back.sum(0)]
