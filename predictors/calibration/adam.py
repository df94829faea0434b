"""Adam (Kingma and Ba, 2015) on a few NumPy arrays, changed in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from specee.predictors.types import Floats


class Adam:
    """Moments of the gradients of `weights`; `beta` is the decay of the second moment."""

    def __init__(self, weights: Sequence[Floats], beta: float = 0.999, epsilon: float = 1e-8) -> None:
        self._weights, self._beta, self._epsilon = weights, beta, epsilon
        self._first = [np.zeros_like(w) for w in weights]
        self._second = [np.zeros_like(w) for w in weights]
        self._n = 0

    def step(self, gradients: Sequence[Floats], step_sizes: Sequence[float]) -> None:
        """One step, with a size for each array."""
        self._n += 1
        bias1, bias2 = 1 - 0.9**self._n, 1 - self._beta**self._n
        for w, g, m, v, size in zip(self._weights, gradients, self._first, self._second, step_sizes, strict=True):
            m += 0.1 * (g - m)
            v += (1 - self._beta) * (g * g - v)
            w -= size * (m / bias1) / (np.sqrt(v / bias2) + self._epsilon)
