"""Exits that are verified: the answer is the dense one, word for word (greedy) or in distribution (sampling).

An exit commits its word provisionally and the next row starts on it. The layers left out run later, for several rows
in one batch; their logits verify each word in turn (acceptance.verify). At the first difference everything after it
is rolled back and decoding goes on from the true word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from specee.predictors.decoding.deferred_rows import Flight
from specee.predictors.decoding.policy import Step, is_last
from specee.predictors.decoding.stats import PolicyStats
from specee.predictors.exits.controller import Watch
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule
from specee.predictors.types import Engine, Sampler, State, TokenEvent
from specee.predictors.verify import choose, verify


class Exact:
    """Commit at the exit, verify when settled."""

    name = "exact"

    def __init__(self, rules: ExitRules, schedule: Schedule) -> None:
        self.rules = rules
        self.stats = PolicyStats()
        self._schedule = schedule
        self._watch = Watch(rules, schedule)

    def reset(self) -> None:
        self._schedule.reset()

    def generate(
        self,
        engine: Engine,
        sampler: Sampler,
        rng: np.random.Generator,
        max_tokens: int,
        history: Sequence[int] = (),
    ) -> Iterator[TokenEvent]:
        self.stats = PolicyStats()
        self._watch.begin(history, self.stats)
        answer = _Answer(engine, sampler, rng, history, self._watch, self.stats)
        flight = answer.flight
        try:
            step = Step(choose(engine, 0, sampler, rng), engine.n_layer)
            while max_tokens > 0:
                yield answer.commit(step)
                last = is_last(engine, step, len(answer.steps), max_tokens)
                if answer.pending and (last or len(answer.pending) >= self.rules.max_pending):
                    events, true = answer.settle()
                    yield from events
                    if true:
                        step = true
                        continue
                if last:
                    return
                step = self._watch.rise(flight, step.word, sampler, rng)
                if step.layer == engine.n_layer:  # no exit: this row and those that wait reach the top together
                    n = len(answer.pending)
                    events, true = answer.settle()
                    yield from events
                    word = true.word if true else choose(engine, n, sampler, rng)
                    step = true or Step(word, step.layer, step.probes, step.candidates)
        finally:
            flight.land()


class _Answer:
    """The words so far; those at `pending` (indices, contiguous up to the end) are provisional."""

    def __init__(
        self,
        engine: Engine,
        sampler: Sampler,
        rng: np.random.Generator,
        history: Sequence[int],
        watch: Watch,
        stats: PolicyStats,
    ) -> None:
        self.flight = Flight(engine)
        self.steps: list[Step] = []
        self.pending: list[int] = []
        self._engine, self._sampler, self._rng = engine, sampler, rng
        self._history, self._watch, self._stats = list(history), watch, stats
        self._first_row = engine.length  # where the row of word 0 stands; it gives word 1

    def commit(self, step: Step) -> TokenEvent:
        """Take a word, provisionally when it comes from an exit."""
        index = len(self.steps)
        self.steps.append(step)
        self._sampler.accept(step.word)
        self._watch.accept(step.word)
        if step.layer < self._engine.n_layer:
            self.pending.append(index)
            return self._event(index, step, State.PROVISIONAL)
        self._count(step)
        return self._event(index, step, State.VERIFIED)

    def settle(self) -> tuple[list[TokenEvent], Step | None]:
        """Run what the rows in flight left out and verify the provisional words, oldest first.

        Gives the events to emit, and the true word in place of the first wrong one (everything from there on has
        been rolled back), or None when all stand.
        """
        engine, sampler = self._engine, self._sampler
        self.flight.climb(engine.n_layer, logits=True)
        self._stats.passes = self.flight.passes
        if not self.pending:
            return [], None
        events: list[TokenEvent] = []
        indices, self.pending = self.pending, []
        sampler.rewind(self._history + [step.word for step in self.steps[: indices[0]]])
        for row, index in enumerate(indices):
            step = self.steps[index]
            word, stands = verify(engine, row, sampler, step.word, step.q, self._rng)
            self._stats.tested += 1
            if not stands:
                events.append(self._event(index, step, State.ROLLED_BACK))
                self._withdraw(index)
                return events, Step(word, engine.n_layer)
            self._stats.accepted += 1
            self._count(step)
            sampler.accept(step.word)
            events.append(self._event(index, step, State.VERIFIED))
        return events, None

    def _withdraw(self, index: int) -> None:
        """Roll back the words from `index` on, and the rows of these words."""
        n = len(self.steps) - index
        self._stats.rolled_back += n
        self._watch.withdraw(n)
        del self.steps[index:]
        self.flight.roll_back(self._first_row + index)

    def _count(self, step: Step) -> None:
        self._stats.tokens += 1
        self._stats.exit_layers += step.layer
        self._stats.exits += step.layer < self._engine.n_layer

    def _event(self, index: int, step: Step, state: State) -> TokenEvent:
        stop = self._engine.is_stop(step.word)
        return TokenEvent(index, step.word, step.layer, state, step.probes, step.candidates, stop)
