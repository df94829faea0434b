"""What the algorithms share: the engine they drive, the events they emit.

A *row* is a token at a position, in flight over the layers; its *depth* is the number of layers done, n_layer when none
is missing. Rows are committed to the slot's sequence, or dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]

Logprobs = tuple[tuple[int, float], ...]
"""Tokens and their logprobs: those of a chosen token, then the likeliest ones; () where they are not wanted."""

TIP = -1
"""In place of a row: the last committed one."""


class TokenState(str, Enum):
    """What is known of a generated token."""

    PROVISIONAL = "provisional"  # an exit chose it, its row has deferred layers
    VERIFIED = "verified"  # final under the policy's promise
    ROLLED_BACK = "rolled_back"  # rejected, with everything after it


@dataclass(frozen=True, slots=True)
class Probe:
    """One evaluation of an exit predictor: the exit layer, and the score in [0, 1]."""

    layer: int
    score: float


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A token was chosen, verified or rolled back.

    `index` counts the answer's tokens from 0. A PROVISIONAL event is followed by a VERIFIED or ROLLED_BACK one with
    the same index; ROLLED_BACK takes back every token from `index` on. `stop` marks an end-of-generation token.
    """

    index: int
    token: int
    exit_layer: int
    state: TokenState
    probes: tuple[Probe, ...] = ()
    candidates: tuple[int, ...] = ()
    stop: bool = False
    drafter: str | None = None
    """What drafted the token; None when it was not drafted."""
    logprobs: Logprobs = ()
    """Of a verified token."""


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
    """Shapes logits by the tokens so far: biases, penalties, a grammar, top-k, top-p, min-p, temperature."""

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken (temperature 0)."""
        ...

    @property
    def is_plain(self) -> bool:
        """Whether it is greedy, and nothing but the choice is wanted of the logits: the best one wins."""
        ...

    @property
    def remembers(self) -> bool:
        """Whether it depends on the tokens accepted so far."""
        ...

    def allows(self, token: int) -> bool:
        """Whether a grammar, if there is one, allows the token as the next one; only then may it be accepted."""
        ...

    def accept(self, token: int) -> None:
        """Count a token as generated."""
        ...

    def rewind(self, prompt: Sequence[int], answer: Sequence[int] = ()) -> None:
        """Forget what was accepted and take these tokens instead: the chat, and the beginning of what was accepted."""
        ...

    def logprobs(self, token: int) -> Logprobs:
        """Those of a token in the row of logits that was looked at last, before any shaping."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Logits(Protocol):
    """Rows of logits, readable until the next ones are made."""

    def greedy(self, i: int, sampler: Sampler) -> int:
        """The most probable token of logits row i under the sampler's shaping."""
        ...

    def distribution(self, i: int, sampler: Sampler) -> tuple[Tokens, Floats]:
        """The shaped distribution of logits row i: tokens [n], most probable first, and their probabilities [n]."""
        ...


class ExitResult(Protocol):
    """Where a row stopped, and the scores on the way."""

    @property
    def stop_index(self) -> int:
        """Index of the exit layer where it stopped; their number when no score was above the threshold."""
        ...

    @property
    def scores(self) -> tuple[float, ...]:
        """One for each probe."""
        ...

    @property
    def best(self) -> int:
        """The margin rule's token at the last probe, -1 without that rule."""
        ...


class Engine(Logits, Protocol):
    """The rows of one slot. `specee.native.engine.RowEngine` is the real one."""

    n_layer: int
    n_embd: int
    n_vocab: int
    n_ctx: int
    max_equal_rows: int
    """So many rows in one batch get each the bits that it has alone, without which `exact` would not be dense."""

    @property
    def length(self) -> int:
        """Committed positions."""
        ...

    @property
    def n_in_flight(self) -> int:
        """Rows that are neither committed nor dropped."""
        ...

    @property
    def tip(self) -> int:
        """The last committed row."""
        ...

    def append(self, token: int, parent: int = TIP) -> int:
        """A new row after `parent` (in flight, or the tip), at depth 0: its id."""
        ...

    def advance(self, rows: Sequence[int], end: int, logits: bool = False) -> None:
        """Run rows of equal depth to depth `end` in one batch; `logits` (end = n_layer) runs the LM head too."""
        ...

    def advance_stages(self, batches: Sequence[tuple[Sequence[int], int]], logits: bool = False) -> None:
        """Several batches at once, each of rows and the depth where they go, the last layers first.

        Their ranges of layers have none in common; rows that others follow are deep enough for these before. `logits`:
        of the batch that goes to n_layer.
        """
        ...

    def depth(self, row: int) -> int:
        """Layers done of a row in flight."""
        ...

    def complete(self, logits: bool = False) -> None:
        """Run the deferred layers of all rows in flight; logits row i is that of the i-th of them."""
        ...

    def run_to_exit(
        self, row: int, layers: Sequence[int], k: int, candidates: Sequence[int], threshold: float
    ) -> ExitResult:
        """Run the last row from exit layer to exit layer until its score is above the threshold.

        Rows in flight before it come along where it passes them. With k > 0 the score is the exit predictor's for the k
        candidates; with k = 0 it is the margin rule's lead.
        """
        ...

    def probe(self, row: int, candidates: Tokens) -> float:
        """The exit predictor's score in [0, 1] of the row at its depth for the candidates: int32 [k]."""
        ...

    def propagate_kv(self, row: int) -> None:
        """Fill K and V of the row's deferred layers from its present hidden state (approximate)."""
        ...

    def lens_head(self, row: int) -> None:
        """Logits (row 0) of the row's hidden state through the lens of its depth: the full-head check."""
        ...

    def draft(self, row: int, token: int, k: int) -> Tokens:
        """The linear head's k best guesses for the token after `token`, which follows `row`: int32 [k]."""
        ...

    def forward(self, token: int) -> int:
        """A token after the tip, through all layers with logits (row 0), and committed: its row."""
        ...

    def commit(self, row: int, *, keep_rest: bool = False) -> None:
        """The path to `row` becomes the sequence; its rows are complete. All other rows in flight are dropped.

        `keep_rest`: those after it on the principal chain stay; there are no others.
        """
        ...

    def roll_back(self, length: int) -> None:
        """Forget every committed position from `length` on, and all rows in flight."""
        ...

    def is_stop(self, token: int) -> bool:
        """Whether the token ends the generation."""
        ...

    def letters(self, token: int) -> str:
        """Letters and digits of the token's text in lower case: two tokens with the same ones read the same."""
        ...


class AdvanceTogether(Protocol):
    """Runs rows of several slots, all of equal depth, to depth `end` in one batch: pairs of an engine and its rows.

    Each engine's logits row i is then that of the i-th of its own rows.
    """

    def __call__(self, batches: Sequence[tuple[Any, Sequence[int]]], end: int, logits: bool = False) -> None: ...
