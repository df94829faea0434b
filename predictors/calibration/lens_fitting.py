"""Fitting of lenses: reduced-rank ridge regression from a hidden state to the final one.

Ridge: B = (X'X + lambda I)^-1 X'Y on centred data. Reduced rank (Izenman, "Reduced-rank regression for the multivariate
linear model", 1975): the fitted values X B are projected on their `rank` strongest directions, measured in the metric
of the LM head (what a difference does to the logits), so that rank is spent on what changes tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.predictors.exits.low_rank import LowRank
from specee.predictors.q8 import BLOCK
from specee.predictors.types import Floats

Doubles = NDArray[np.float64]
_ROWS = 4096  # rows that are widened to float32 at a time


@dataclass(slots=True)
class Moments:
    """Sums over rows that a linear regression needs."""

    n: int
    x: Doubles  # [n_in]
    y: Doubles  # [n_out]
    xx: Doubles  # [n_in, n_in]
    xy: Doubles  # [n_in, n_out]

    @classmethod
    def of(cls, x: Any, y: Any) -> Moments:
        """x [n, n_in] and y [n, n_out] in any float type; read in blocks."""
        n_in, n_out = x.shape[1], y.shape[1]
        m = cls(len(x), np.zeros(n_in), np.zeros(n_out), np.zeros((n_in, n_in)), np.zeros((n_in, n_out)))
        for at in range(0, len(x), _ROWS):
            a = np.asarray(x[at : at + _ROWS], np.float32)
            b = np.asarray(y[at : at + _ROWS], np.float32)
            m.x += a.sum(0, dtype=np.float64)
            m.y += b.sum(0, dtype=np.float64)
            m.xx += a.T @ a
            m.xy += a.T @ b
        return m


def head_metric(rows: Floats, ridge: float = 0.05) -> tuple[Floats, Floats]:
    """Square root of the mean outer product of LM head rows [n, n_embd], and its inverse: two [n_embd, n_embd]."""
    square = (rows.T @ rows).astype(np.float64) / len(rows)
    values, vectors = np.linalg.eigh(square)
    values = np.maximum(values, 0.0) + ridge * float(values.mean())
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    return root.astype(np.float32), inverse.astype(np.float32)


def fit(moments: Moments, rank: int, alpha: float, metric: tuple[Floats, Floats]) -> LowRank:
    """Ridge with lambda = alpha * n, reduced to `rank`, a multiple of 32; at the full width nothing is lost."""
    m = moments
    assert rank % BLOCK == 0
    mean_x, mean_y = m.x / m.n, m.y / m.n
    xx = m.xx / m.n - np.outer(mean_x, mean_x)
    xy = m.xy / m.n - np.outer(mean_x, mean_y)
    solution = np.linalg.solve(xx + alpha * np.eye(len(xx)), xy)  # [n_in, n_out]
    if rank >= m.xy.shape[1]:
        bias = mean_y - mean_x @ solution
        return LowRank(solution.T.astype(np.float32), np.eye(len(bias), dtype=np.float32), bias.astype(np.float32))
    root, inverse = metric
    weighted = solution @ root
    fitted = weighted.T @ xx @ weighted  # second moments of the fitted values
    _, vectors = np.linalg.eigh((fitted + fitted.T) / 2)
    strongest = vectors[:, ::-1][:, :rank]
    down = (weighted @ strongest).T
    up = inverse @ strongest
    scale = np.sqrt(np.mean(np.square(down), axis=1, keepdims=True)) + 1e-12  # even rows: kinder to 8 bits
    down, up = down / scale, up * scale.T
    bias = mean_y - up @ (down @ mean_x)
    return LowRank(down.astype(np.float32), up.astype(np.float32), bias.astype(np.float32))
