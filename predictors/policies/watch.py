"""Looking at a row at its armed boundaries: draft, probe, full-head check (SpecEE, ISCA 2025, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from specee.predictors import drafts
from specee.predictors.acceptance import certain, sample
from specee.predictors.policies.base import Step
from specee.predictors.policies.flight import Flight
from specee.predictors.policies.stats import PolicyStats
from specee.predictors.rules import ExitRules
from specee.predictors.schedule import Schedule
from specee.predictors.types import Distribution, Engine, Probe, Sampler


class Watch:
    """Takes the last row of a flight up to its exit. One for a conversation; `begin` starts each answer."""

    def __init__(self, rules: ExitRules, schedule: Schedule) -> None:
        self.rules = rules
        self.schedule = schedule
        self.drafts = drafts.build(rules)
        self._stats = PolicyStats()

    def begin(self, history: Sequence[int], stats: PolicyStats) -> None:
        self._stats = stats
        if self.rules.rule == "predictor":
            self.drafts.begin(history)

    def accept(self, word: int) -> None:
        if self.rules.rule == "predictor":
            self.drafts.accept(word)

    def withdraw(self, n: int) -> None:
        if self.rules.rule == "predictor":
            self.drafts.withdraw(n)

    def rise(self, flight: Flight, token: int, sampler: Sampler, rng: np.random.Generator) -> Step:
        """Start a row and raise it from armed boundary to armed boundary until it exits.

        Without an exit the row is left at the last armed boundary, and the step has the word -1.
        """
        engine, stats, seconds = flight.engine, self._stats, 0.0
        pos = flight.start(token)
        armed = self.schedule.armed()
        look = _Look(engine, pos, token, self)
        probes: list[Probe] = []
        step = None
        for boundary in armed:
            flight.climb(boundary)
            begin = perf_counter()
            score = look.score()
            probes.append(Probe(boundary, score))
            if score > self.rules.threshold:
                chosen = look.confirm(sampler, rng)
                if chosen is not None:
                    step = Step(chosen[0], boundary, tuple(probes), look.candidates, chosen[1])
            seconds += perf_counter() - begin
            if step:
                break
        stats.rows += 1
        stats.armed += len(armed)
        stats.probes += len(probes)
        stats.look_seconds += seconds
        stats.wasted_seconds += 0.0 if step else seconds
        stats.taken += step is not None
        stats.schedule_hits += self.schedule.note(step.layer if step else None)
        return step or Step(-1, engine.n_layer, tuple(probes), look.candidates)

    def check(self, engine: Engine, pos: int, sampler: Sampler) -> int:
        """The full head on the row's state seen through its lens: the best word of the whole vocabulary."""
        engine.lens_head(pos)
        self._stats.checks += 1
        return engine.greedy(0, sampler)

    def refuse(self) -> None:
        """A check failed: the row goes on."""
        self._stats.checks_failed += 1


class _Look:
    """One row under the rule in force. The candidates are drafted once, at the first armed boundary."""

    def __init__(self, engine: Engine, pos: int, token: int, watch: Watch) -> None:
        self.candidates: tuple[int, ...] = ()
        self._engine, self._pos, self._token, self._watch = engine, pos, token, watch
        self._rules = watch.rules
        self._best = -1

    def score(self) -> float:
        engine, rules = self._engine, self._rules
        if rules.rule == "margin":
            self._best, lead = engine.margin(self._pos)
            return lead
        if not self.candidates:
            self.candidates = tuple(self._watch.drafts.draft(engine, self._pos, self._token, rules.k))
        if len(self.candidates) < rules.k:  # a predictor knows no other number
            return 0.0
        return engine.probe(self._pos, np.array(self.candidates, np.int32))

    def confirm(self, sampler: Sampler, rng: np.random.Generator) -> tuple[int, Distribution | None] | None:
        """The word of the exit and what it was drawn from, or None: go on."""
        rules = self._rules
        if rules.rule == "margin" and sampler.is_plain and not rules.margin_head_check:
            return self._best, certain(self._best)
        best = self._watch.check(self._engine, self._pos, sampler)
        if rules.rule == "margin":
            refused = rules.margin_head_check and best != self._best
        else:
            refused = rules.full_head_check and best not in self.candidates
        if refused:
            self._watch.refuse()
            return None
        if sampler.is_greedy:
            return best, None
        q = self._engine.distribution(0, sampler)
        return sample(q, rng), q
