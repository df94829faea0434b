"""Draft trees: a chain, and beside its tokens what other guessers proposed for the same places."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import count

from specee.predictors.cost_model import CostModel
from specee.predictors.drafters.base import Budget, DraftState, DraftTree
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.guess import CONTEXT, CostlyGuesser, Guess, Guesser, HitRates
from specee.predictors.drafters.termination import Termination

MIN_VALUE = 0.02  # tokens: what is worth less than this is worth no row anywhere
_SHADES = 4  # of an estimate
_FIRST = "first"


class SideRowGuesser:
    """Guesses what the last step's side rows have computed already: nearly always right."""

    name = "side row"

    def __init__(self) -> None:
        self.known: Sequence[int] = ()
        """What follows the answer's last token."""
        self._at = 0
        self._rates = HitRates()

    def begin(self, tokens: Sequence[int]) -> None:
        self.known = ()

    def guess(self, context: Sequence[int], row: int | None) -> Guess | None:
        if row is not None:
            self._at = 0
        drafted = list(context[len(context) - self._at :])
        if self._at == len(self.known) or drafted != list(self.known[: self._at]):
            return None
        self._at += 1
        return Guess(self.known[self._at - 1], self._rates.estimate(None, 0.95), None)

    def accept(self, token: int) -> None:
        self.known = ()

    def learn(self, kind: Hashable, hit: bool) -> None:
        self._rates.learn(kind, hit)


@dataclass(frozen=True, slots=True)
class _Node:
    """A draft that may get a row: where it stands, and the text up to it, from which its child is guessed."""

    token: int
    parent: int
    prob: float
    source: str
    text: tuple[int, ...]
    depth: int
    is_side: bool


class TreeDrafter(ChainDrafter):
    """The chain of ChainDrafter, and side rows where guessers disagree; of both, the rows of the best value.

    The value of a row of the chain is the probability that its token is accepted. A token that a side row drafted would
    be chosen without it too: its row brings the token after that, which is a sure draft in the next step. So its value
    is the probability of its path times that of the next step's first draft being wrong otherwise.
    """

    def __init__(
        self,
        guessers: Sequence[Guesser],
        cost: CostModel,
        costly: CostlyGuesser | None = None,
        termination: Termination | None = None,
    ) -> None:
        self.side_rows = SideRowGuesser()
        super().__init__([self.side_rows, *guessers], cost, costly, termination)
        self._beside = HitRates()  # of guesses for a place where the chain's token is wrong
        self._first = HitRates()  # of the first draft of a step

    def propose(self, state: DraftState, budget: Budget) -> DraftTree:
        """At most `cost.max_rows` - 1 tokens and `budget.room`, of depth `budget.depth`, the first child of each token
        the likeliest: a tree that grows by its best node, cut where one more costs more than it brings."""
        chain = super().propose(state, budget)
        side_value = 1.0 - self._first.estimate(_FIRST, 0.4)
        text = tuple(self._text[-CONTEXT:])
        frontier: list[tuple[float, int, _Node]] = []  # a heap, the best value first
        number = count()
        nodes: list[_Node] = []
        values: list[float] = []

        def push(value: float, node: _Node) -> None:
            if value >= MIN_VALUE and node.depth <= budget.depth:
                heapq.heappush(frontier, (-value, next(number), node))

        def push_chain(i: int, reached: float) -> None:
            if i < len(chain.tokens):
                node = _Node(chain.tokens[i], len(nodes) - 1, chain.probs[i], self.sources[i], (), i + 1, False)
                push(reached * chain.probs[i], node)

        push_chain(0, 1.0)
        while frontier and len(nodes) < min(self.cost.max_rows - 1, budget.room):
            value, _, node = heapq.heappop(frontier)
            value = -value
            at = len(nodes)
            nodes.append(node)
            values.append(value)
            if node.is_side:
                if (best := self._best_free(node.text)) is not None:
                    source, guess = best
                    child = (*node.text, guess.token)
                    push(value * guess.prob, _Node(guess.token, at, guess.prob, source, child, node.depth + 1, True))
                continue
            i = node.depth - 1
            push_chain(i + 1, value)
            wrong = value / node.prob * (1.0 - node.prob) * side_value
            for place in self._others[i]:
                p = self._beside.estimate((place.source, int(place.prob * _SHADES)), place.prob / 2)
                path = (*text, *chain.tokens[:i], place.token)
                push(wrong * p, _Node(place.token, node.parent, p, place.source, path, node.depth, True))
        ratios = [value / before for value, before in zip(values, [1.0, *values], strict=False)]
        nodes = nodes[: self._termination.length(ratios, self._seconds)]
        self.sources = [node.source for node in nodes]
        return DraftTree(
            tuple(node.token for node in nodes),
            tuple(node.parent for node in nodes),
            tuple(node.prob for node in nodes),
        )

    def _best_free(self, context: Sequence[int]) -> tuple[str, Guess] | None:
        """The best guess without cost for what follows drafted tokens."""
        found = [(g.name, guess) for g in self.guessers if (guess := g.guess(context, None)) is not None]
        return max(found, key=lambda pair: pair[1].prob, default=None)

    def accept(self, token: int) -> None:
        if self._at < len(self._guesses):
            hit = self._guesses[self._at].token == token
            if self._at == 0:
                self._first.learn(_FIRST, hit)
            for place in [] if hit else self._others[self._at]:
                self._beside.learn((place.source, int(place.prob * _SHADES)), place.token == token)
        super().accept(token)
