"""Low-rank linear maps. Two kinds are fitted in calibration, and both estimate a final state, divided by its rms.

A *lens* maps the hidden state at an exit layer (divided by its rms, too); the draft head maps the final state of the
previous position and the embedding of the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from specee.predictors.q8 import from_q8, to_q8
from specee.predictors.types import Floats


@dataclass(frozen=True, slots=True)
class LowRank:
    """y = up (down x) + bias; down [rank, n_in], up [n_out, rank], bias [n_out]."""

    down: Floats
    up: Floats
    bias: Floats

    def reduce(self, x: Any) -> Floats:
        """[n, n_in] -> [n, rank]."""
        reduced: Floats = np.asarray(x, np.float32) @ self.down.T
        return reduced

    def __call__(self, x: Any) -> Floats:
        """[n, n_in] -> [n, n_out]."""
        mapped: Floats = self.reduce(x) @ self.up.T + self.bias
        return mapped

    @property
    def is_square(self) -> bool:
        """Whether nothing is reduced: `up` is then the identity, or may be folded into `down`."""
        return bool(self.up.shape[0] == self.up.shape[1])

    def rounded(self) -> LowRank:
        """The same after a round trip through Q8_0: what the engine computes with. Square ones get up = identity."""
        if self.is_square:
            return LowRank(from_q8(to_q8(self.up @ self.down)), np.eye(len(self.up), dtype=np.float32), self.bias)
        return LowRank(from_q8(to_q8(self.down)), from_q8(to_q8(self.up)), self.bias)
