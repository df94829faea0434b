"""Draft chains: tokens ahead, one after the other, as long as they are worth their rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from specee.predictors.cost_model import CostModel
from specee.predictors.drafters.base import Budget, DraftState, DraftTree
from specee.predictors.drafters.guess import CONTEXT, CostlyGuesser, DraftSoFar, Guess, Guesser, HitRates, Learner
from specee.predictors.drafters.termination import BestLength, Termination

_SHADES = 4  # of an estimate, where two guessers agree


@dataclass(slots=True)
class Place:
    """What is guessed for one place, and who learns whether it was right."""

    token: int
    prob: float
    source: str
    learner: Learner
    kind: Hashable
    seconds: float = 0.0


class ChainDrafter:
    """At each position the guess with the best estimated acceptance; `termination` says how many are verified.

    `costly`: a guesser that takes time, and is asked where that pays. Nothing is rolled back here: it hears of verified
    tokens only.
    """

    def __init__(
        self,
        guessers: Sequence[Guesser],
        cost: CostModel,
        costly: CostlyGuesser | None = None,
        termination: Termination | None = None,
    ) -> None:
        """`termination`: by the cost model, if none is given."""
        self.guessers, self.costly = tuple(guessers), costly
        self.cost = cost
        self._termination = termination or BestLength(cost)
        self.sources: list[str] = []
        """Which guesser drafted each token of the last proposal."""
        self._text: list[int] = []
        self._all: tuple[Guesser, ...] = (*guessers, costly) if costly is not None else tuple(guessers)
        self._agreements = HitRates()
        self._others: list[list[Place]] = []  # what else was guessed for each place of the last proposal
        self._places: dict[int, Place] = {}  # all that was guessed for the last place
        self._guesses: list[Place] = []  # of the last proposal, tokens beyond it too
        self._at = 0  # the next of them to be compared with what is accepted
        self._hits = 0  # those that were right so far
        self._seconds = 0.0  # that the last proposal took

    def begin(self, tokens: Sequence[int]) -> None:
        """Start an answer after these tokens (the whole conversation so far)."""
        self._guesses, self._others, self.sources = [], [], []
        self._text = list(tokens)
        for guesser in self._all:
            guesser.begin(tokens)

    def propose(self, state: DraftState, budget: Budget) -> DraftTree:
        """A chain of at most `budget.depth` tokens; none where they are not worth their rows."""
        if self.sources:
            self._termination.learn(len(self.sources), min(self._hits, len(self.sources)))
        context = self._text[-CONTEXT:]
        guesses: list[Place] = []
        probs: list[float] = []
        seconds = 0.0  # that they took
        self._others = []
        row: int | None = state.row
        while len(guesses) < budget.depth:
            best = self._best(context, row, probs, seconds, budget.room)
            if best is None:
                break
            seconds += best.seconds
            guesses.append(best)
            self._others.append([place for place in self._places.values() if place is not best])
            probs.append(best.prob)
            if self._termination.length([*probs, 1.0], seconds) <= len(probs):
                break  # not even a certain token is worth its row
            context.append(best.token)
            row = None
        self._guesses, self._at, self._hits, self._seconds = guesses, 0, 0, seconds
        n = self._termination.length(probs, seconds)
        self.sources = [place.source for place in guesses[:n]]
        return DraftTree(tuple(place.token for place in guesses[:n]), tuple(range(-1, n - 1)), tuple(probs[:n]))

    def _best(
        self, context: Sequence[int], row: int | None, probs: Sequence[float], seconds: float, room: int
    ) -> Place | None:
        """The guess for the next place with the best estimate; where guessers agree, the estimate is of that."""
        places = self._places = {}
        for guesser in self.guessers:
            guess = guesser.guess(context, row)
            if guess is not None:
                self._add(places, guesser, guess)
        best = max(places.values(), key=_prob, default=None)
        costly = self.costly
        if costly is None:
            return best
        free = best.prob if best is not None else 0.0
        if not costly.is_worth(self.cost, DraftSoFar(probs, seconds, free, room)):
            return best
        guess = costly.guess(context, row)
        if guess is not None:
            self._add(places, costly, guess)
        best = max(places.values(), key=_prob, default=None)
        if best is not None:
            best.seconds = costly.seconds
        return best

    def _add(self, places: dict[int, Place], guesser: Guesser, guess: Guess) -> None:
        known = places.get(guess.token)
        if known is None:
            places[guess.token] = Place(guess.token, guess.prob, guesser.name, guesser, guess.kind)
            return
        prior = max(known.prob, guess.prob)
        known.kind = (known.source, int(known.prob * _SHADES), guesser.name, int(guess.prob * _SHADES))
        known.prob = self._agreements.estimate(known.kind, prior)
        known.learner = self._agreements

    def accept(self, token: int) -> None:
        """The next token of the answer; what was guessed for its place was right or wrong."""
        if self._at < len(self._guesses):
            place = self._guesses[self._at]
            hit = place.token == token
            place.learner.learn(place.kind, hit)
            self._at = self._at + 1 if hit else len(self._guesses)
            self._hits += hit
        self._text.append(token)
        for guesser in self._all:
            guesser.accept(token)


def _prob(place: Place) -> float:
    return place.prob
