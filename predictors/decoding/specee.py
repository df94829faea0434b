"""The paper's policy: the word of an exit is final (SpecEE, ISCA 2025, sections 4 and 5).

Unlike the paper's code it never leaves holes in the K/V of the skipped layers: they are filled from the exit's state
(`kv="propagate"`) or computed later, several rows in one batch (`kv="complete"`).
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
from specee.predictors.verify import choose


class SpecEE:
    """Commit at the exit."""

    name = "specee"

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
        stats = self.stats = PolicyStats()
        flight = Flight(engine)
        self._watch.begin(history, stats)
        try:
            step = Step(choose(engine, 0, sampler, rng), engine.n_layer)
            for index in range(max_tokens):
                sampler.accept(step.word)
                self._watch.accept(step.word)
                stats.tokens += 1
                stats.exit_layers += step.layer
                stats.exits += step.layer < engine.n_layer
                yield _event(engine, index, step)
                if is_last(engine, step, index + 1, max_tokens):
                    return
                step = self._watch.rise(flight, step.word, sampler, rng)
                if step.layer == engine.n_layer:
                    step = self._at_the_top(flight, step, sampler, rng)
                elif self.rules.kv == "propagate":
                    flight.fill()
                elif flight.n_rows >= self.rules.max_pending:
                    flight.climb(engine.n_layer)
                stats.passes = flight.passes
                stats.tested = stats.checks
                stats.accepted = stats.checks - stats.checks_failed
        finally:
            flight.land()

    def _at_the_top(self, flight: Flight, step: Step, sampler: Sampler, rng: np.random.Generator) -> Step:
        """No exit: take the row, and rows that wait, to the last layer; only this one needs the head."""
        engine = flight.engine
        alone = flight.n_rows == 1
        flight.climb(engine.n_layer, logits=alone)
        if not alone:
            engine.lens_head(engine.length - 1)
        return Step(choose(engine, 0, sampler, rng), step.layer, step.probes, step.candidates)


def _event(engine: Engine, index: int, step: Step) -> TokenEvent:
    stop = engine.is_stop(step.word)
    return TokenEvent(index, step.word, step.layer, State.VERIFIED, step.probes, step.candidates, stop)
