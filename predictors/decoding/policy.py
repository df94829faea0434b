"""What every policy offers, and the step it makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from specee.predictors.decoding.stats import PolicyStats
from specee.predictors.types import Distribution, Engine, Probe, Sampler, TokenEvent


@dataclass(frozen=True, slots=True)
class Step:
    """A chosen word, and how it came about. `q`: what it was drawn from, None for a word that was not drawn."""

    word: int
    layer: int
    probes: tuple[Probe, ...] = ()
    candidates: tuple[int, ...] = ()
    q: Distribution | None = None


class Policy(Protocol):
    """A way to decode."""

    name: str

    @property
    def stats(self) -> PolicyStats:
        """Of the present or last answer."""
        ...

    def generate(
        self,
        engine: Engine,
        sampler: Sampler,
        rng: np.random.Generator,
        max_tokens: int,
        history: Sequence[int] = (),
    ) -> Iterator[TokenEvent]:
        """Answer after a prefill that left the first distribution in logits row 0.

        `history`: the tokens in the cache (the conversation so far), which the sampler has accepted already.
        However it ends, no row is left with layers undone; a stop token ends the answer.
        """
        ...

    def reset(self) -> None:
        """A new conversation begins."""
        ...


def is_last(engine: Engine, step: Step, n_words: int, max_tokens: int) -> bool:
    """Whether the answer ends with this word: a stop token, enough tokens, or no place for its row."""
    return engine.is_stop(step.word) or n_words >= max_tokens or engine.length >= engine.n_ctx
