"""Guesses of the next token, with how likely each is to be accepted: what chains of drafts are made of."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from specee.predictors.cost_model import CostModel

PRIOR_WEIGHT = 30.0  # observations that the first estimate counts for
HORIZON = 400.0  # observations after which older ones fade
CONTEXT = 16  # tokens of the text that guessers see


@dataclass(frozen=True, slots=True)
class Guess:
    """A token, its estimated acceptance, and the kind of guess that the estimate belongs to."""

    token: int
    prob: float
    kind: Hashable


class Learner(Protocol):
    """Estimates the acceptance of kinds of guesses."""

    def learn(self, kind: Hashable, hit: bool) -> None:
        """A guess of this kind was right, or wrong."""
        ...


class Guesser(Learner, Protocol):
    """Guesses one token at a time."""

    name: str

    def begin(self, tokens: Sequence[int]) -> None:
        """Start an answer after these tokens (the whole conversation so far)."""
        ...

    def guess(self, context: Sequence[int], row: int | None) -> Guess | None:
        """What follows `context`: the last CONTEXT tokens of the text, and those drafted after them.

        `row`: the row before its last token; None where that token is only drafted.
        """
        ...

    def accept(self, token: int) -> None:
        """The next token of the answer."""
        ...


class CostlyGuesser(Guesser, Protocol):
    """One whose guesses take time: it is asked only where they are worth it."""

    @property
    def seconds(self) -> float:
        """Time of one guess."""
        ...

    def is_worth(self, cost: CostModel, draft: DraftSoFar) -> bool:
        """Whether to ask it for the next token of this draft; heard of for each place, asked or not."""
        ...


@dataclass(frozen=True, slots=True)
class DraftSoFar:
    """A draft under way."""

    probs: Sequence[float]
    """Estimated acceptance of its tokens, each given that those before it are accepted."""
    seconds: float
    """Time that they took."""
    free: float
    """Estimated acceptance of the next token that guessers without cost have, 0 where they have none."""
    room: int
    """Tokens that the answer still takes."""


class HitRates:
    """Acceptance of each kind of guess, learned online; old observations fade."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, list[float]] = {}

    def estimate(self, kind: Hashable, prior: float) -> float:
        """The hit rate of a kind, `prior` before anything was seen."""
        hits, tries = self._counts.get(kind) or self._counts.setdefault(kind, [prior * PRIOR_WEIGHT, PRIOR_WEIGHT])
        return hits / tries

    def learn(self, kind: Hashable, hit: bool) -> None:
        counts = self._counts.get(kind)
        if counts is None:
            return
        counts[0] += hit
        counts[1] += 1.0
        if counts[1] > HORIZON:
            counts[0] *= 0.5
            counts[1] *= 0.5
