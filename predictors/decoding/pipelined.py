"""Speculative pipelined execution (Hooper et al., "SPEED", 2023): the next token starts before this one is chosen.

The layers are divided into stages, one for each device. When rows leave the first one, the tokens after them are
guessed, by a drafter or by the lens of that depth; and the guesses enter the first stage while these rows go through
the next one. So there are rows in each stage, and all stages run at the same time. At the top the dense model's token
stands, the one that dense decoding chooses with the same random numbers. A wrong guess goes no further than to the
border of its stage: it is rolled back with the rows after it.

With a right guess for each token, n stages of equal time make n times the tokens of one row that goes through them
alone; with none as many. On one device stages run one after the other, and nothing is gained.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from specee.predictors.decoding.policy import WorkAndEvents
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import Advance, AdvanceStages, Append, Commit, LensHead, Work
from specee.predictors.drafters.base import Budget
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.types import TokenEvent
from specee.predictors.verify import choose

LENS = "lens"  # what drafts without a drafter, or where it has no guess
MAX_COMPLETE = 32
"""Complete rows that wait for the commit, which drops the rows after them: it comes with a wrong guess, or now."""


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    token: int
    drafter: str | None
    """What guessed its token; None for one that stands."""


@dataclass(slots=True)
class _Batch:
    """Rows that go from stage to stage together, one after the other in the text."""

    rows: list[_Row]
    stage: int = 0
    """Stages that are done."""


class Pipelined:
    """Rows in each stage. `stages`: the depths where they end, the last one is n_layer.

    `width`: rows of a batch. `lens`: whether the first stage ends at an exit layer, whose lens guesses.
    """

    name = "pipelined"

    def __init__(
        self, stages: Sequence[int], drafter: ChainDrafter | None = None, width: int = 1, *, lens: bool = True
    ) -> None:
        self._stages, self._drafter, self._width, self._lens = tuple(stages), drafter, width, lens

    def reset(self) -> None:
        """Nothing is kept of a conversation but what the drafter learned."""

    def decode(self, state: Decoding) -> WorkAndEvents:
        if self._drafter is not None:
            self._drafter.begin([*state.prompt, *state.tokens])
        batches: deque[_Batch] = deque()  # the deepest first
        n_complete = 0
        yield self._add(state, choose(state.logits, 0, state.sampler, state.rng), None)
        while not state.is_last:
            if not batches or n_complete >= MAX_COMPLETE:
                if n_complete:
                    yield Commit(state.row)
                n_complete = 0
                batches.clear()
                batches.append(_Batch([_Row((yield Append(state.tokens[-1], state.row)), state.tokens[-1], None)]))
                state.stats.rows += 1
            yield from self._fill(state, batches)
            yield from self._advance(state, batches)
            if batches[0].stage < len(self._stages):
                continue
            state.stats.steps += 1
            done = batches.popleft().rows
            for i, row in enumerate(done):
                token = choose(state.logits, i, state.sampler, state.rng)
                state.row = row.id
                n_complete += 1
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
        if n_complete:
            yield Commit(state.row)

    def _add(self, state: Decoding, token: int, drafter: str | None) -> TokenEvent:
        event = state.add(ChosenToken(token, state.n_layer, drafter=drafter))
        if self._drafter is not None:
            self._drafter.accept(token)
        return event

    def _advance(self, state: Decoding, batches: Sequence[_Batch]) -> Generator[Work, Any, None]:
        """Each batch through its next stage."""
        work = [(tuple(row.id for row in batch.rows), self._stages[batch.stage]) for batch in batches]
        logits = work[0][1] == state.n_layer
        result = yield Advance(*work[0], logits) if len(work) == 1 else AdvanceStages(tuple(work), logits)
        if logits:
            state.logits = result
        for batch in batches:
            batch.stage += 1

    def _fill(self, state: Decoding, batches: deque[_Batch]) -> Generator[Work, Any, None]:
        """Guesses after all rows under way, into the first stage if it is empty or has the last token only."""
        last = batches[-1]
        n_free = self._width - (len(last.rows) if last.stage == 0 else 0)
        ahead = [row.token for batch in batches for row in batch.rows][1:]
        n = min(n_free, state.room - len(ahead))
        if n <= 0:
            return
        guesses = self._draft(state, ahead, n)
        if not guesses and self._lens and last.stage == 1:
            state.logits = yield LensHead(last.rows[-1].id)
            guesses = [(self._choose_early(state, len(ahead)), LENS)]
        if guesses and last.stage > 0:
            batches.append(_Batch([]))
        for token, drafter in guesses:
            before = (batches[-1].rows or last.rows)[-1].id
            batches[-1].rows.append(_Row((yield Append(token, before)), token, drafter))
            state.stats.rows += 1

    def _draft(self, state: Decoding, ahead: Sequence[int], n: int) -> list[tuple[int, str]]:
        """At most n tokens that may follow those guessed before, and what guessed each."""
        if self._drafter is None:
            return []
        began = state.clock()
        tree = self._drafter.propose(state, Budget(width=1, depth=len(ahead) + n, room=state.room))
        state.stats.draft_seconds += state.clock() - began
        if tree.tokens[: len(ahead)] != tuple(ahead):  # it guesses otherwise by now
            return []
        return list(islice(zip(tree.tokens, self._drafter.sources, strict=True), len(ahead), None))

    @staticmethod
    def _choose_early(state: Decoding, n_ahead: int) -> int:
        """What the lens chooses for the row `n_ahead` guesses after the last token's, with the numbers to come."""
        rng = copy.deepcopy(state.rng)
        for _ in range(n_ahead):
            rng.random()
        return choose(state.logits, 0, state.sampler, rng)
