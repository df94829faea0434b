"""Speculative pipelined execution (Hooper et al., "SPEED", 2023): the next token starts before this one is chosen.

The layers are divided into stages, one for each device. When rows leave the first one, the tokens after them are
guessed, by a drafter or by the lens of that depth; and the guesses enter the first stage while these rows go through
the next one. So there are rows in each stage, and all stages run at the same time. At the top the dense model's token
stands, the one that dense decoding chooses with the same random numbers. A wrong guess is dropped when the row before
it is there, with the rows after it: one that is the first row of its batch never enters the last stage, and of two
stages it goes no further than to their border.

With a share p of the guesses right, n stages of equal time make n / (1 + (1 - p) (n - 1)) times the tokens of one row
that goes through them alone: n times with all right, with none as many. On one device stages run one after the other,
and nothing is gained.

A lens at a border could reject guesses earlier (of a batch, or some stages before they are verified) or choose between
its own guess and the drafter's. That was tried, and costs more than it saves (predictors/README.md). So the lens is
asked where there is no other guess.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from specee.predictors.decoding.policy import WorkAndEvents
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import Advance, AdvanceStages, Append, Commit, LensHead, Work
from specee.predictors.drafters.base import Budget
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.types import TokenEvent
from specee.predictors.verify import choose

LENS = "lens"  # what guesses without a drafter, or where it has no guess


@dataclass(frozen=True, slots=True)
class _Guess:
    token: int
    drafter: str
    prob: float


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    token: int
    drafter: str | None = None
    """What guessed its token; None for one that stands."""


@dataclass(slots=True)
class _Batch:
    """Rows that go from stage to stage together, one after the other in the text."""

    rows: list[_Row]
    stage: int = 0
    """Stages that are done."""


@dataclass(slots=True)
class _UnderWay:
    """The batches in flight, the deepest one first: its first row is that of the last token."""

    batches: deque[_Batch] = field(default_factory=deque)
    guesses: deque[_Guess] | None = None
    """Those after all rows; None: nothing was guessed yet for the last token."""

    @property
    def ahead(self) -> tuple[int, ...]:
        """The guessed tokens."""
        return tuple(row.token for batch in self.batches for row in batch.rows)[1:]


class Pipelined:
    """Rows in each stage. `stages`: the depths where they end, the last one is n_layer.

    `width`: rows of a batch; None: as many as the drafter's cost model says. `lens`: whether the first stage ends at an
    exit layer, whose lens guesses where the drafter does not.
    """

    name = "pipelined"

    def __init__(
        self, stages: Sequence[int], drafter: ChainDrafter | None = None, width: int | None = 1, *, lens: bool = True
    ) -> None:
        self._stages, self._drafter, self._width, self._lens = tuple(stages), drafter, width, lens

    def reset(self) -> None:
        """Nothing is kept of a conversation but what the drafter learned."""

    def decode(self, state: Decoding) -> WorkAndEvents:
        if self._drafter is not None:
            self._drafter.begin([*state.prompt, *state.tokens])
        under_way = _UnderWay()
        yield self._add(state, choose(state.logits, 0, state.sampler, state.rng), None)
        while not state.is_last:
            batches = under_way.batches
            if not batches:
                batches.append(_Batch([_Row((yield Append(state.tokens[-1], state.row)), state.tokens[-1])]))
                state.stats.rows += 1
            yield from self._fill(state, under_way)
            yield from self._advance(state, under_way)
            if batches[0].stage == len(self._stages):
                yield from self._verify(state, under_way)

    def _add(self, state: Decoding, token: int, drafter: str | None) -> TokenEvent:
        event = state.add(ChosenToken(token, state.n_layer, drafter=drafter))
        if self._drafter is not None:
            self._drafter.accept(token)
        return event

    def _verify(self, state: Decoding, under_way: _UnderWay) -> WorkAndEvents:
        """The deepest batch is at the top: the tokens that its logits give, up to the first wrong guess."""
        state.stats.steps += 1
        batches, done = under_way.batches, under_way.batches.popleft().rows
        under_way.guesses = None
        for i, row in enumerate(done):
            state.row = row.id  # that of the token before the last one
            token = choose(state.logits, i, state.sampler, state.rng)
            guess = done[i + 1] if i + 1 < len(done) else batches[0].rows[0] if batches else None
            is_right = guess is not None and guess.token == token
            if guess is not None and guess.drafter is not None:
                state.stats.tested += 1
                state.stats.accepted += is_right
                state.stats.count_draft(guess.drafter, i, is_right)
            yield self._add(state, token, guess.drafter if guess is not None and is_right else None)
            if not is_right or state.is_last:
                batches.clear()
                break
        yield Commit(state.row, keep_rest=bool(batches))

    def _advance(self, state: Decoding, under_way: _UnderWay) -> Generator[Work, Any, None]:
        """Each batch through its next stage; one alone, which nothing follows, through all."""
        batches = under_way.batches
        if len(batches) == 1 and not under_way.guesses and not (self._lens and state.room):
            batches[0].stage = len(self._stages) - 1
        work = [(tuple(row.id for row in batch.rows), self._stages[batch.stage]) for batch in batches]
        logits = work[0][1] == state.n_layer
        result = yield Advance(*work[0], logits) if len(work) == 1 else AdvanceStages(tuple(work), logits)
        if logits:
            state.logits = result
        for batch in batches:
            batch.stage += 1

    def _fill(self, state: Decoding, under_way: _UnderWay) -> Generator[Work, Any, None]:
        """Guesses into the first stage, if it is empty or has but the last token."""
        last = under_way.batches[-1]
        is_new = last.stage > 0
        guesses = yield from self._guesses(state, under_way)
        n = self._rows_after(guesses, is_new)
        if n > 0 and is_new:
            under_way.batches.append(_Batch([]))
        for _ in range(n):
            guess, batch = guesses.popleft(), under_way.batches[-1]
            before = (batch.rows or last.rows)[-1].id
            batch.rows.append(_Row((yield Append(guess.token, before)), guess.token, guess.drafter))
            state.stats.rows += 1

    def _rows_after(self, guesses: Sequence[_Guess], is_new: bool) -> int:
        """How many of the guesses go into a new batch, or into that of the last token.

        A new one takes a stage that nothing else would use, so that its first row costs nothing.
        """
        if self._width is not None:
            return min(self._width - (not is_new), len(guesses))
        assert self._drafter is not None
        probs = [guess.prob for guess in guesses]
        first = int(is_new and bool(probs))
        return first + self._drafter.cost.best_length(probs[first:])

    def _guesses(self, state: Decoding, under_way: _UnderWay) -> Generator[Work, Any, deque[_Guess]]:
        """What may follow all rows under way, as far as the answer takes it."""
        ahead, last = under_way.ahead, under_way.batches[-1]
        room = state.room - len(ahead)
        if room <= 0:
            under_way.guesses = deque()
        elif under_way.guesses is None:
            under_way.guesses = deque(self._draft(state, ahead)[:room])
        guesses = under_way.guesses
        if not guesses and room > 0 and self._lens and last.stage == 1:
            state.logits = yield LensHead(last.rows[-1].id)
            guesses.append(_Guess(self._choose_early(state, len(ahead)), LENS, 0.0))
        return guesses

    def _draft(self, state: Decoding, ahead: tuple[int, ...]) -> list[_Guess]:
        """By the drafter, after the tokens that were guessed before."""
        drafter = self._drafter
        if drafter is None:
            return []
        began = state.clock()
        tree = drafter.propose(state, Budget(width=1, depth=state.room, room=state.room))
        state.stats.draft_seconds += state.clock() - began
        if tree.tokens[: len(ahead)] != ahead:  # it guesses otherwise by now
            return []
        return list(map(_Guess, tree.tokens, drafter.sources, tree.probs))[len(ahead) :]

    @staticmethod
    def _choose_early(state: Decoding, n_ahead: int) -> int:
        """What the lens chooses for the row `n_ahead` guesses after the last token's, with the numbers to come."""
        rng = copy.deepcopy(state.rng)
        for _ in range(n_ahead):
            rng.random()
        return choose(state.logits, 0, state.sampler, rng)
