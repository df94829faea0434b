"""What models that have run here showed of their speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measured:
    """Of a model: tokens a second of dense decoding, and what drafts bring over that by the answers so far (None: not
    known yet). `rows`: what a step of n rows takes, of one with a single row."""

    dense_rate: float
    speedup: float | None = None
    rows: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Experience:
    """By the SHA-256 of the model's file; of this machine, this library and this number of threads."""

    models: Mapping[str, Measured] = field(default_factory=dict)


NO_EXPERIENCE = Experience()
