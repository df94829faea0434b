"""The vocabulary that the algorithms share: the engine they drive, and the events they emit.

Row, depth, boundary, probe, exit, settle: see the README's picture. Positions count tokens of the one conversation
from 0; a row's depth is the number of layers done; `n_layer` means that none was skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]


class State(str, Enum):
    """What is known of an emitted token."""

    PROVISIONAL = "provisional"  # an exit chose it, its deferred layers have not run yet
    VERIFIED = "verified"  # final under the policy's promise
    ROLLED_BACK = "rolled_back"  # withdrawn, with everything after it


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at a row: the layer, and the predictor's score in [0, 1]."""

    layer: int
    score: float


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A token was chosen, confirmed or withdrawn.

    `index` counts the answer's tokens from 0. A PROVISIONAL event is followed by a VERIFIED or ROLLED_BACK one with
    the same index; ROLLED_BACK withdraws every token from `index` on. `stop` marks an end-of-generation token.
    """

    index: int
    token: int
    exit_layer: int
    state: State
    probes: tuple[Probe, ...] = ()
    candidates: tuple[int, ...] = ()
    stop: bool = False


class Rise(Protocol):
    """Where a row stopped, and what was seen on the way."""

    @property
    def stopped(self) -> int:
        """Index of the layer where it stopped; the number of layers when it is at the last, with no score above."""
        ...

    @property
    def scores(self) -> tuple[float, ...]:
        """One for each look."""
        ...

    @property
    def best(self) -> int:
        """The margin rule's token at the last look, -1 without that rule."""
        ...


class Engine(Protocol):
    """Rows in flight of one conversation. `specee.native.engine.RowEngine` is the real one."""

    n_layer: int
    n_embd: int
    n_vocab: int
    n_ctx: int

    @property
    def length(self) -> int:
        """First position without a row."""
        ...

    def advance(self, pos: int, n: int, end: int, tokens: Sequence[int] | None = None, logits: bool = False) -> None:
        """Take the n rows at pos.. to depth `end`; `tokens` starts new rows; `logits` (end = n_layer) runs the head."""
        ...

    def rise(
        self, token: int | None, layers: Sequence[int], k: int, candidates: Sequence[int], threshold: float
    ) -> Rise:
        """Raise the last row (a new one of `token`) from layer to layer until its score is above the threshold.

        Rows that wait below a layer come along to it. With k > 0 the score is the predictor's for the k candidates;
        with k = 0 it is the margin rule's lead.
        """
        ...

    def propagate(self, pos: int, n: int) -> None:
        """Fill K and V of the remaining layers of n rows from their present hidden state (approximate)."""
        ...

    def lens_head(self, pos: int) -> None:
        """Logits (row 0) of the hidden state at `pos` through the lens of its depth: the full-head check."""
        ...

    def probe(self, pos: int, candidates: Tokens) -> float:
        """Predictor score of the row at its depth for k candidates: int32 [k]."""
        ...

    def draft(self, pos: int, token: int, k: int) -> Tokens:
        """The linear head's k best guesses for the token after `token` at `pos`: int32 [k]."""
        ...

    def roll_back(self, length: int) -> None:
        """Forget every position from `length` on."""
        ...

    def greedy(self, row: int, sampler: Sampler) -> int:
        """The most probable token of logits row `row` under the sampler's shaping."""
        ...

    def distribution(self, row: int, sampler: Sampler) -> Distribution:
        """The shaped distribution of logits row `row`."""
        ...

    def is_stop(self, token: int) -> bool:
        """Whether the token ends the generation."""
        ...

    def word(self, token: int) -> str:
        """Letters and digits of the token's text in lower case: what makes two tokens the same word to a reader."""
        ...


@dataclass(frozen=True, slots=True)
class Distribution:
    """Tokens with probabilities that add up to 1, most probable first."""

    tokens: Tokens  # [n]
    probs: Floats  # [n]

    def prob(self, token: int) -> float:
        """Probability of one token, 0 when it was cut off."""
        hit = np.flatnonzero(self.tokens == token)
        return float(self.probs[hit[0]]) if hit.size else 0.0


class Sampler(Protocol):
    """Shapes logits (penalties, top-k, top-p, min-p, temperature) given the tokens accepted so far."""

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken (temperature 0)."""
        ...

    @property
    def is_plain(self) -> bool:
        """Whether it is greedy and reshapes nothing (no penalties): the best logit wins."""
        ...

    def accept(self, token: int) -> None:
        """Count a token as said."""
        ...

    def rewind(self, tokens: Sequence[int]) -> None:
        """Forget what was accepted and take these tokens instead; only the last ones a penalty can see need be read."""
        ...
