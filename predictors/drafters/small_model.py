"""A small model with the same vocabulary drafts for a large one (Leviathan et al., ICML 2023): its own best next token.

What it costs is measured, what it brings is learned: whether it is asked follows from the two, place by place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from specee.predictors.cost_model import RATE, CostModel
from specee.predictors.drafters.draft_engine import DraftEngine
from specee.predictors.drafters.guess import CONTEXT, DraftSoFar, Guess, HitRates

ANSWER_TOKENS = 128
"""Tokens of an answer over which reading the conversation must pay for itself; fewer where fewer are wanted."""
CHUNK = 256  # tokens that are read at once at most: an answer can be stopped between two steps only
PROBE_SHARE = 0.01
"""Share of the time that goes into guesses which do not pay as far as known: to see whether they do by now."""
HOPED_FOR = 0.9  # acceptance that such a guess is made for


@dataclass(frozen=True, slots=True)
class _Asked:
    """A guess, after these drafted tokens; and the kinds under which it is learned whether it was right."""

    drafted: tuple[int, ...]
    token: int
    kinds: tuple[Hashable, Hashable]


class SmallModelGuesser:
    """The small model's engine follows the conversation as far as it is asked.

    Its tokens that were drafted and accepted are not computed again; all others that came meanwhile are read in one
    batch. The model's own probability of a guess is calibrated by how often such guesses were right.
    """

    def __init__(
        self,
        engine: DraftEngine,
        times: dict[int, float],
        n_vocab: int,
        clock: Callable[[], float],
        name: str = "model",
    ) -> None:
        """`times`: seconds of the small model's steps of n tokens, by n. `n_vocab`: the large model's, which may lack
        some of the small one's padding tokens."""
        self.name = name
        self._engine, self._n_vocab, self._clock = engine, n_vocab, clock
        self._times = CostModel(times, engine.n_at_once)
        self._per_token: float | None = None  # seconds, where many are read at once
        self._rates = HitRates()
        self._text: list[int] = []
        self._n_same = 0  # so many of the engine's tokens are known to be the text's; the last one is never counted
        self._can_follow = True
        self._accepted: list[int] = []  # since the last draft began
        self._asked: list[_Asked] = []  # for that draft
        self._free: Hashable = None  # kind of place that the next guess is for
        self._saving: float | None = None  # mean, of a token
        self._allowance = 0.0  # seconds for guesses that do not pay as far as known

    @property
    def seconds(self) -> float:
        return self._reading(1)

    def begin(self, tokens: Sequence[int]) -> None:
        self._text = list(tokens)
        self._n_same, self._asked = 0, []

    def is_worth(self, cost: CostModel, draft: DraftSoFar) -> bool:
        """Whether the guess saves time, and enough tokens are to come that reading what it missed pays too."""
        first = not draft.probs
        if first:
            self._can_follow = self._engine.settle(len(self._text))
            self._find_same()
            self._accepted, self._asked = [], []
            self._allowance += PROBE_SHARE * cost.step(1)
        if not self._can_follow or len(self._text) + len(draft.probs) >= self._engine.n_ctx:
            return False
        self._free = ("place", int(4 * draft.free))
        prob = self._rates.estimate(self._free, 0.5 + 0.4 * draft.free)
        saving = cost.saving(draft.probs, draft.seconds, draft.free, prob, self.seconds)
        if first:
            saved = max(0.0, saving)
            self._saving = saved if self._saving is None else self._saving + RATE * (saved - self._saving)
        known = len(self._text) + len(self._asked[-1].drafted) if self._asked else self._n_same
        missing = len(self._text) + len(draft.probs) - known
        catching_up = max(0.0, self._reading(missing) - self.seconds)
        if saving > 0.0 and (self._saving or 0.0) * min(ANSWER_TOKENS, draft.room) >= catching_up:
            return True
        price = catching_up + self.seconds
        if not first or price > self._allowance:
            return False
        if cost.saving(draft.probs, draft.seconds, draft.free, HOPED_FOR, self.seconds) <= 0.0:
            return False
        self._allowance -= price
        return True

    def guess(self, context: Sequence[int], row: int | None) -> Guess | None:
        """None while it still reads a long text, one part a step, and after tokens that only the large model has."""
        n_drafted = len(context) - min(CONTEXT, len(self._text))
        drafted = tuple(context[len(context) - n_drafted :])
        if not self._read([*self._text[self._n_same :], *drafted]):
            return None
        token, prob = self._engine.best()
        if token >= self._n_vocab:
            return None
        kind = ("prob", int(10 * prob))
        self._asked.append(_Asked(drafted, token, (kind, self._free)))
        return Guess(token, self._rates.estimate(kind, 0.9 * prob), kind)

    def accept(self, token: int) -> None:
        for asked in self._asked:
            if list(asked.drafted) == self._accepted:
                for kind in asked.kinds:
                    self._rates.learn(kind, asked.token == token)
        self._accepted.append(token)
        self._text.append(token)

    def learn(self, kind: Hashable, hit: bool) -> None:
        """Nothing: `accept` learns, also from guesses that another guesser's were preferred to."""

    def _find_same(self) -> None:
        """Also when another conversation had the engine meanwhile."""
        if self._engine.tokens[: self._n_same] != self._text[: self._n_same]:
            self._n_same = 0
        self._n_same += _n_common(self._engine.tokens[self._n_same :], self._text[self._n_same : -1])

    def _read(self, new: list[int]) -> bool:
        """The engine reads the text and what is drafted after it: `new`, after the tokens that are known to be the
        same. False when there is more to read, or what it cannot read.
        """
        engine, began = self._engine, self._clock()
        if any(token >= engine.n_vocab for token in new):
            return False
        n_drafted = _n_common(engine.tokens[self._n_same :], new[:-1])  # by this model, earlier in the same draft
        engine.roll_back(self._n_same + n_drafted)
        new = new[n_drafted:]
        part = new if len(new) <= engine.n_at_once else new[:CHUNK]
        engine.read(part)
        self._n_same = min(len(engine.tokens), len(self._text) - 1)
        self._record(len(part), self._clock() - began)
        return len(part) == len(new)

    def _record(self, n: int, seconds: float) -> None:
        if n <= self._engine.n_at_once:
            self._times.record(n, seconds)
        elif n >= CHUNK // 8 and seconds > 0.0:  # without what a call costs
            self._per_token = seconds / n

    def _reading(self, n: int) -> float:
        """Seconds to read n tokens."""
        few = n <= self._engine.n_at_once
        return self._times.step(n) if few or self._per_token is None else n * self._per_token


def _n_common(some: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens two texts have in common from their beginning."""
    for n, (one, other) in enumerate(zip(some, others, strict=False)):
        if one != other:
            return n
    return min(len(some), len(others))
