"""Looking at a row at its armed boundaries: draft, probe, full-head check (SpecEE, ISCA 2025, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from specee.predictors import drafters
from specee.predictors.decoding.deferred_rows import Flight
from specee.predictors.decoding.policy import Step
from specee.predictors.decoding.stats import PolicyStats
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule
from specee.predictors.types import Distribution, Engine, Probe, Sampler
from specee.predictors.verify import certain, sample


class Watch:
    """Takes the last row of a flight up to its exit. One for a conversation; `begin` starts each answer."""

    def __init__(self, rules: ExitRules, schedule: Schedule) -> None:
        self.rules = rules
        self.schedule = schedule
        self.drafts = drafters.build(rules)
        self._drafting = rules.rule == "predictor"
        self._stats = PolicyStats()
        self._said: list[int] = []

    def begin(self, history: Sequence[int], stats: PolicyStats) -> None:
        self._stats = stats
        self._said.clear()
        if self._drafting:
            self.drafts.begin(history)

    def accept(self, word: int) -> None:
        self._said.append(word)
        if self._drafting:
            self.drafts.accept(word)

    def withdraw(self, n: int) -> None:
        del self._said[-n:]
        if self._drafting:
            self.drafts.withdraw(n)

    def rise(self, flight: Flight, token: int, sampler: Sampler, rng: np.random.Generator) -> Step:
        """Start a row and raise it from armed boundary to armed boundary until it exits.

        Without an exit the row is left at the last armed boundary, and the step has the word -1.
        """
        engine, stats, rules = flight.engine, self._stats, self.rules
        armed = left = self.schedule.armed()
        k = rules.k if rules.rule == "predictor" else 0
        candidates = self._candidates(engine, token) if armed else ()
        probes: list[Probe] = []
        step, start = None, True
        if k > 0 and len(candidates) < k:  # a predictor knows no other number
            left = ()
        while left and step is None:
            seen = flight.rise(token if start else None, left, k, candidates, rules.threshold)
            probes += map(Probe, left, seen.scores)
            if seen.stopped < len(left):
                begin = perf_counter()
                chosen = self._confirm(engine, token, candidates, seen.best, sampler, rng)
                stats.check_seconds += perf_counter() - begin
                if chosen is not None:
                    step = Step(chosen[0], left[seen.stopped], tuple(probes), candidates, chosen[1])
            start, left = False, left[seen.stopped + 1 :]
        if start:
            flight.start(token)
        stats.rows += 1
        stats.armed += len(armed)
        stats.probes += len(probes)
        stats.taken += step is not None
        stats.schedule_hits += self.schedule.note(step.layer if step else None)
        return step or Step(-1, engine.n_layer, tuple(probes), candidates)

    def _candidates(self, engine: Engine, token: int) -> tuple[int, ...]:
        """Drafted once a row: k tokens for the place after `token`, which will stand at the end of the sequence."""
        if not self._drafting:
            return ()
        begin = perf_counter()
        found = tuple(self.drafts.draft(engine, engine.length, token, self.rules.k))
        self._stats.draft_seconds += perf_counter() - begin
        return found

    def _confirm(
        self,
        engine: Engine,
        token: int,
        candidates: tuple[int, ...],
        best: int,
        sampler: Sampler,
        rng: np.random.Generator,
    ) -> tuple[int, Distribution | None] | None:
        """The word of the exit and what it was drawn from, or None: go on. `best` is the margin rule's word."""
        rules = self.rules
        if rules.rule == "margin" and sampler.is_plain and not rules.margin_head_check:
            return None if self._echo(engine, best, token) else (best, certain(best))
        word = self._check(engine, sampler)
        if rules.rule == "margin":
            refused = rules.margin_head_check and word != best
        else:
            refused = rules.full_head_check and word not in candidates
        if refused or self._echo(engine, word, token):
            self._stats.checks_failed += 1
            return None
        if sampler.is_greedy:
            return word, None
        q = engine.distribution(0, sampler)
        return sample(q, rng), q

    def _check(self, engine: Engine, sampler: Sampler) -> int:
        """The full head on the last row's state seen through its lens: the best word of the whole vocabulary."""
        engine.lens_head(engine.length - 1)
        self._stats.checks += 1
        return engine.greedy(0, sampler)

    def _echo(self, engine: Engine, word: int, token: int) -> bool:
        """Whether `word` only says the row's own token, or the answer's last word, once more."""
        if not self.rules.no_echo:
            return False
        if word == token:
            return True
        text = engine.word(word)
        last = next((said for said in map(engine.word, reversed(self._said)) if said), "")
        return text != "" and text == last
