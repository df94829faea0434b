"""The exit predictor, technique T1 of SpecEE (ISCA 2025, section 4.3): 3k features -> 512 ReLU -> 1 sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specee.predictors.types import Floats


@dataclass(frozen=True, slots=True)
class ExitPredictor:
    """Scores a probe by its features: may the row exit?

    w1 [n_hidden, n_in = 3k], b1 [n_hidden], w2 [n_hidden], b2; standardisation is folded into w1 and b1.
    """

    w1: Floats
    b1: Floats
    w2: Floats
    b2: float

    def __call__(self, features: Floats) -> Floats:
        """Scores in [0, 1]: [n, n_in] -> [n]."""
        logits = np.maximum(features @ self.w1.T + self.b1, 0.0) @ self.w2 + self.b2
        return sigmoid(logits.astype(np.float32))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), safe for large |x|."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), np.float32)
