"""What training needs from outside, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.settings import CalibrationEngine
from specee.predictors.exits.lm_head import HeadEngine
from specee.predictors.types import Floats, Tokens

N_STEPS = 3
"""Tokens that a head drafts one after the other in training, each from what it made of the one before."""

ProgressCallback = Callable[[str, float], None]  # what is being done, share done in [0, 1]
HalfFloats = NDArray[np.float16]


class TrainingEngine(CalibrationEngine, Protocol):
    """A slot of an engine that keeps what some layers made of each token."""

    tokens: list[int]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that a head reads: three."""
        ...

    def states(self, begin: int, end: int) -> Floats:
        """What they made of the tokens at these positions: float32 [end - begin, 3 * n_embd]."""
        ...


class Slot(Protocol):
    """One of the conversations that a model holds at once."""

    n_ctx: int

    @property
    def tokens(self) -> list[int]: ...

    def roll_back(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        ...

    def best(self) -> int:
        """The most probable token after the last one."""
        ...

    def draw(self, temperature: float, top_p: float, chance: float) -> int:
        """A token after the last one, by a random number in [0, 1)."""
        ...

    def states(self, begin: int, end: int) -> HalfFloats:
        """What the head's layers made of the tokens at these positions: [end - begin, 3 * n_embd]."""
        ...

    def final(self, begin: int, end: int) -> HalfFloats:
        """What the last layer made of them, over its root mean square: [end - begin, n_embd]. Known of tokens that
        were the last ones of a `read`."""
        ...


class Weights(HeadEngine, Protocol):
    """What training takes from the model besides states."""

    @property
    def n_embd(self) -> int: ...
    @property
    def n_vocab(self) -> int: ...
    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that a head reads: three."""
        ...

    def embedding_rows(self, tokens: Sequence[int] | Tokens) -> Floats:
        """Token embeddings: float32 [n, n_embd]."""
        ...


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The model that a head is made for, as the app knows it."""

    slots: Sequence[Slot]
    """Conversations run side by side in these."""
    read: Callable[[Sequence[tuple[Slot, list[int]]]], None]
    """Gives each of some slots one or more tokens."""
    weights: Weights
    before_question: list[int]
    """The tokens of a chat up to where a user's question begins."""
    after_question: list[int]
    """The tokens from its end to where the answer begins."""
    encode: Callable[[str], list[int]]
    """Plain text -> tokens."""
    is_stop: Callable[[int], bool]
    """Whether a token ends a turn."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of self-chat and training; `tokens` and `seconds` bound the recording, whichever comes first."""

    tokens: int = 400_000
    seconds: float = 3600.0
    disk_bytes: int = 32 << 30
    """Of the recorded states, at most."""
    question_tokens: int = 120
    answer_tokens: int = 320
    material_tokens: int = 600
    """Of earlier answers that a question may be about."""
    n_validation: int = 60
    """Bundled prompts, unlike the self-chat, whose answers show what the head is worth."""
    vocabulary: int = 8192
    """Tokens that the head can draft: the most frequent ones of the answers."""
    passes: float = 2.0
    """How often training sees each token."""
    train_seconds: float = 5400.0
    batch_tokens: int = 768
    seed: int = 0


def read_layers(n_layer: int) -> tuple[int, int, int]:
    """The layers that a head reads: an early one, a middle one and a late one (EAGLE-3, section 3.1)."""
    return (2, n_layer // 2, n_layer - 3) if n_layer >= 8 else (1, n_layer // 2, n_layer - 1)
