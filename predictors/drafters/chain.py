"""Draft chains: tokens ahead, one after the other, as long as they are worth their rows."""

from __future__ import annotations

from collections.abc import Sequence

from specee.predictors.cost_model import CostModel
from specee.predictors.drafters.base import Budget, DraftState, DraftTree
from specee.predictors.drafters.guess import CONTEXT, CostlyGuesser, DraftSoFar, Guess, Guesser


class ChainDrafter:
    """At each position the guess with the best estimated acceptance; the cost model says how many are verified.

    `costly`: a guesser that takes time, and is asked where that pays. Nothing is rolled back here: it hears of verified
    tokens only.
    """

    def __init__(self, guessers: Sequence[Guesser], cost: CostModel, costly: CostlyGuesser | None = None) -> None:
        self.costly = costly
        self.guessers: tuple[Guesser, ...] = (*guessers, costly) if costly is not None else tuple(guessers)
        self.cost = cost
        self.sources: list[str] = []
        """Which guesser drafted each token of the last proposal."""
        self._text: list[int] = []
        self._guesses: list[tuple[Guesser, Guess]] = []  # of the last proposal, tokens beyond it too
        self._at = 0  # the next of them to be compared with what is accepted

    def begin(self, tokens: Sequence[int]) -> None:
        """Start an answer after these tokens (the whole conversation so far)."""
        self._guesses = []
        self._text = list(tokens)
        for guesser in self.guessers:
            guesser.begin(tokens)

    def propose(self, state: DraftState, budget: Budget) -> DraftTree:
        """A chain of at most `budget.depth` tokens; none where they are not worth their rows."""
        context = self._text[-CONTEXT:]
        guesses: list[tuple[Guesser, Guess]] = []
        probs: list[float] = []
        seconds = 0.0  # that they took
        row: int | None = state.row
        while len(guesses) < budget.depth:
            best: tuple[Guesser, Guess] | None = None
            for guesser in self.guessers:  # the costly one last
                if guesser is self.costly:
                    free = best[1].prob if best is not None else 0.0
                    if not self.costly.is_worth(self.cost, DraftSoFar(probs, seconds, free, budget.room)):
                        continue
                    seconds += self.costly.seconds
                guess = guesser.guess(context, row)
                if guess is not None and (best is None or guess.prob > best[1].prob):
                    best = guesser, guess
            if best is None:
                break
            guesses.append(best)
            probs.append(best[1].prob)
            if not self.cost.worth_extending(probs, seconds):
                break
            context.append(best[1].token)
            row = None
        self._guesses, self._at = guesses, 0
        n = self.cost.best_length(probs, seconds)
        self.sources = [guesser.name for guesser, _ in guesses[:n]]
        return DraftTree(tuple(guess.token for _, guess in guesses[:n]), tuple(range(-1, n - 1)), tuple(probs[:n]))

    def accept(self, token: int) -> None:
        """The next token of the answer; what was guessed for its place was right or wrong."""
        if self._at < len(self._guesses):
            guesser, guess = self._guesses[self._at]
            hit = guess.token == token
            guesser.learn(guess.kind, hit)
            self._at = self._at + 1 if hit else len(self._guesses)
        self._text.append(token)
        for guesser in self.guessers:
            guesser.accept(token)
