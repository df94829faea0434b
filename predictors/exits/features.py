"""NumPy twin of the probe in native/src, for calibration and as a reference in tests.

One difference: the rms has an epsilon of 1e-6 here, and the model's own in native.

Features of k candidates (SpecEE, ISCA 2025, section 4.3): k logits (the LM head's rows of
the candidates only), k probabilities (softmax over
the candidates), k changes of these since the previous probe of the row (the first one: since 1 / k).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from specee.predictors.exits.lm_head import LMHead
from specee.predictors.types import Floats


def inverse_rms(states: Floats) -> Floats:
    """1 / rms of each row: [n, n_embd] -> [n, 1]."""
    square = np.mean(np.square(states), axis=-1, keepdims=True)
    result: Floats = (1.0 / np.sqrt(square + 1e-6)).astype(np.float32)
    return result


def sliced_logits(final: Floats, head: LMHead, place: NDArray[np.int64]) -> Floats:
    """Logits of candidates: final states [n, n_embd] (a lens's output), their rows of the head [n, k] -> [n, k]."""
    products = np.einsum("nd,nkd->nk", final * inverse_rms(final), head.rows[place])
    return LMHead(head.rows, head.constants[place], head.cap).logits(products)


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def feature_vector(logits: Floats, probs: Floats, previous: Floats | None) -> Floats:
    """logits, their softmax and the previous probe's [n, k] (None: first probe) -> features [n, 3k]."""
    before = previous if previous is not None else np.full_like(probs, 1.0 / probs.shape[1])
    return np.concatenate([logits, probs, probs - before], axis=1)
