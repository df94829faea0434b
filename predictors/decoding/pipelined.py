"""Speculative pipelined execution (Hooper et al., "SPEED", 2023): the next token starts before this one is chosen.

The layers are divided into stages. When a row leaves the first one, the lens of that depth guesses its token, and the
guess enters the first stage while the row goes through the others: so there is a row in each stage. At the top the
dense model's token stands, the one that dense decoding chooses with the same random numbers; a wrong guess is rolled
back with the rows after it.

It gains where stages run at the same time, on different devices. Here they run one after the other: on one CPU a right
guess saves nothing, and every guess costs an LM head, and a wrong one a stage.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from specee.predictors.decoding.policy import WorkAndEvents
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import Advance, Append, Commit, LensHead, Work
from specee.predictors.verify import choose

GUESSED = "lens"  # what drafts
MAX_COMPLETE = 32
"""Complete rows that wait for the commit, which drops the rows after them: it comes with a wrong guess, or now."""


@dataclass(slots=True)
class _Row:
    id: int
    token: int
    stage: int = 0
    """Stages that are done."""


class Pipelined:
    """A row in each stage. `stages`: the depths where they end, exit layers but for the last one, n_layer."""

    name = "pipelined"

    def __init__(self, stages: Sequence[int]) -> None:
        self._stages = tuple(stages)

    def reset(self) -> None:
        """Nothing is kept."""

    def decode(self, state: Decoding) -> WorkAndEvents:
        token, source = choose(state.logits, 0, state.sampler, state.rng), None
        rows: list[_Row] = []  # the last verified token's and those of guesses
        n_complete = 0
        while True:
            yield state.add(ChosenToken(token, state.n_layer, drafter=source))
            if source is None or n_complete == MAX_COMPLETE or state.is_last:
                if n_complete:
                    yield Commit(state.row)
                if state.is_last:
                    return
                rows = [_Row((yield Append(token, state.row)), token)]
                state.stats.rows += 1
                n_complete = 0
            yield from self._advance(state, rows)
            first = rows.pop(0)
            state.row = first.id
            n_complete += 1
            state.stats.steps += 1
            token, source = choose(state.logits, 0, state.sampler, state.rng), None
            if rows:
                if rows[0].token == token:
                    source = GUESSED
                state.stats.count_drafts((GUESSED,), source is not None)

    def _advance(self, state: Decoding, rows: list[_Row]) -> Generator[Work, Any, None]:
        """Stage by stage, the deepest row first, until the first one is at the top: logits row 0 is then its own."""
        while True:
            for row in list(rows):
                end = self._stages[row.stage]
                state.logits = yield Advance((row.id,), end, logits=end == state.n_layer)
                row.stage += 1
                if end == state.n_layer:
                    return
                if row.stage == 1 and len(rows) <= state.room:
                    state.logits = yield LensHead(row.id)
                    guess = self._guess(state, len(rows) - 1)
                    rows.append(_Row((yield Append(guess, row.id)), guess))
                    state.stats.rows += 1

    @staticmethod
    def _guess(state: Decoding, n_ahead: int) -> int:
        """What the lens chooses for the row `n_ahead` guesses after the last token's, with the numbers to come."""
        rng = copy.deepcopy(state.rng)
        for _ in range(n_ahead):
            rng.random()
        return choose(state.logits, 0, state.sampler, rng)
