"""What a model makes of a final state: rows of its LM head, and what else makes logits of their products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from specee.predictors.types import Floats, Tokens


class HeadEngine(Protocol):
    """An engine that shows its LM head."""

    def head_rows(self, tokens: Sequence[int] | Tokens) -> Floats:
        """Rows of the LM head times the final norm's weight and what scales logits: float32 [n, n_embd]."""
        ...

    def head_constants(self, tokens: Sequence[int] | Tokens) -> Floats:
        """What is added to their products with a final state: float32 [n]."""
        ...

    def head_shape(self) -> tuple[bool, float]:
        """Whether the final norm takes off the mean of a state; and c where logits are c tanh(x), else 0."""
        ...


@dataclass(frozen=True, slots=True)
class LMHead:
    """Some tokens' part of it. A final state is centred, where the model does that, and divided by its rms."""

    rows: Floats
    """[n_tokens, n_embd]"""
    constants: Floats
    """[n_tokens]"""
    cap: float = 0.0

    @classmethod
    def of(cls, engine: HeadEngine, tokens: Sequence[int] | Tokens) -> LMHead:
        return cls(engine.head_rows(tokens), engine.head_constants(tokens), engine.head_shape()[1])

    def __len__(self) -> int:
        return len(self.rows)

    def logits(self, products: Any) -> Floats:
        """Of products of the rows with final states: [..., n_tokens]."""
        logits = products + self.constants
        result: Floats = np.asarray(self.cap * np.tanh(logits) if self.cap else logits, np.float32)
        return result

    def slope(self, logits: Floats) -> Floats:
        """What a logit changes by when its product does: of `logits`."""
        return np.asarray(self.cap - np.square(logits) / self.cap if self.cap else 1.0, np.float32)
