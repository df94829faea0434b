"""Exits of one row: candidates, armed exit layers, probes, full-head check (SpecEE, ISCA 2025, section 4.3)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import LensHead, RunToExit, Work
from specee.predictors.drafters.base import Budget, Drafter
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule
from specee.predictors.types import Distribution, ExitResult, Probe
from specee.predictors.verify import certain, sample


class ExitController:
    """Runs a row up to its exit. One for a conversation; `begin` starts each answer."""

    def __init__(self, rules: ExitRules, schedule: Schedule, drafter: Drafter) -> None:
        self.rules, self.schedule = rules, schedule
        self._drafter = drafter if rules.rule == "predictor" else None

    def reset(self) -> None:
        """A new conversation begins."""
        self.schedule.reset()

    def begin(self, state: Decoding) -> None:
        if self._drafter is not None:
            self._drafter.begin([*state.prompt, *state.tokens])

    def accept(self, token: int) -> None:
        """The answer has grown by a token."""
        if self._drafter is not None:
            self._drafter.accept(token)

    def roll_back(self, n: int) -> None:
        """The answer's last n tokens were rejected."""
        if self._drafter is not None:
            self._drafter.roll_back(n)

    def run(self, state: Decoding, row: int) -> Generator[Work, Any, ChosenToken]:
        """Run the last token's row from armed exit layer to armed exit layer until it exits.

        Without an exit it is left at the last armed layer, and the result has the token -1 and exit layer n_layer.
        """
        stats, rules = state.stats, self.rules
        armed = remaining = self.schedule.armed()
        k = rules.k if self._drafter is not None else 0
        candidates = self.candidates(state) if armed else ()
        if len(candidates) < k:  # a predictor takes exactly k
            remaining = ()
        probes: list[Probe] = []
        chosen = None
        while remaining and chosen is None:
            result: ExitResult = yield RunToExit(row, remaining, k, candidates, rules.threshold)
            probes += map(Probe, remaining, result.scores)
            at = result.stop_index
            if at < len(remaining):
                drawn = yield from self._choose(state, row, candidates, result.best)
                if drawn is not None:
                    chosen = ChosenToken(drawn[0], remaining[at], tuple(probes), candidates, drawn[1])
            remaining = remaining[at + 1 :]
        stats.rows += 1
        stats.armed += len(armed)
        stats.probes += len(probes)
        stats.all_exits += chosen is not None
        stats.schedule_hits += self.schedule.record(chosen.exit_layer if chosen else None)
        return chosen or ChosenToken(-1, state.n_layer, tuple(probes), candidates)

    def candidates(self, state: Decoding) -> tuple[int, ...]:
        """The k tokens that are most likely to follow, drafted once a row."""
        if self._drafter is None:
            return ()
        began = state.clock()
        tree = self._drafter.propose(state, Budget(width=self.rules.k))
        state.stats.draft_seconds += state.clock() - began
        return tree.tokens

    def _choose(
        self, state: Decoding, row: int, candidates: tuple[int, ...], best: int
    ) -> Generator[Work, Any, tuple[int, Distribution | None] | None]:
        """The exit's token and what it was drawn from, or None: no exit. `best` is the margin rule's token.

        With the predictor's rule this is the full-head check. The margin rule needs the LM head only where the
        sampler reshapes its logits.
        """
        rules, sampler = self.rules, state.sampler
        if rules.rule == "margin" and sampler.is_plain:
            return None if self._repeats(state, best) else (best, certain(best))
        began = state.clock()
        logits = yield LensHead(row)
        token = logits.greedy(0, sampler)
        state.stats.checks += 1
        state.stats.check_seconds += state.clock() - began
        refused = rules.rule == "predictor" and rules.full_head_check and token not in candidates
        if refused or self._repeats(state, token):
            state.stats.checks_failed += 1
            return None
        if sampler.is_greedy:
            return token, None
        q = Distribution(*logits.distribution(0, sampler))
        return sample(q, state.rng), q

    def _repeats(self, state: Decoding, token: int) -> bool:
        """Whether `token` repeats the row's own token, or the answer's last letters."""
        if not self.rules.no_repeat:
            return False
        if token == state.tokens[-1]:
            return True
        text = state.letters(token)
        last = next((letters for letters in map(state.letters, reversed(state.tokens)) if letters), "")
        return text != "" and text == last
