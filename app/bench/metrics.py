"""Figures of texts and of rates; no engine here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

_WORD = re.compile(r"\w+")


def duplicate_words(texts: Iterable[str]) -> float:
    """Share of the words that repeat the word before them."""
    repeated = pairs = 0
    for text in texts:
        words = [w.lower() for w in _WORD.findall(text)]
        pairs += max(0, len(words) - 1)
        repeated += sum(a == b for a, b in pairwise(words))
    return repeated / pairs if pairs else 0.0


def geometric_mean(values: Sequence[float]) -> float | None:
    """None without positive values."""
    logs = [math.log(v) for v in values if v > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None


def ratio(part: float, whole: float) -> float | None:
    """None when there is nothing to divide by."""
    return part / whole if whole else None


def nll(logits: Any, token: int) -> float:
    """Negative log-probability of a token: logits float32 [n_vocab]."""
    x = np.asarray(logits, dtype=np.float64)
    top = float(x.max())
    return top + math.log(float(np.exp(x - top).sum())) - float(x[token])
