"""Exits of drafted rows: SpecEE's technique T3, the merged mapping (ISCA 2025, section 6).

A chain of drafts rises in one batch. At an exit layer its rows are one hyper-token: it exits where all of them may,
that is, where the exit predictor of each row is sure and the full-head check gives the drafted token. Then the tokens
stand at once (`specee`), or provisionally, until the deferred layers run and verify them (`exact`: the text is dense's,
sampled text too, since an exit draws no random numbers). A hyper-token without an exit goes to the top and is verified
there as in policy chain, with all rows in flight.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from specee.predictors.decoding.exit_controller import ExitController
from specee.predictors.decoding.policy import WorkAndEvents
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import Append, Commit, Complete, LensHead, ProbeRow, RunToExit, Work
from specee.predictors.drafters.base import Budget
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.types import ExitResult, Logprobs, Probe, TokenEvent, TokenState
from specee.predictors.verify import choose

Steps = Generator[Work | TokenEvent, Any, None]


@dataclass(frozen=True, slots=True)
class Exited:
    """A drafted token that stands provisionally: what drafted it, and its position in the draft."""

    chosen: ChosenToken
    drafter: str
    position: int


class MergedExits:
    """Drafts and exits. At most `max_rows` rows are in flight, in one batch at the last layer."""

    def __init__(
        self, controller: ExitController, drafter: ChainDrafter, max_rows: int, name: Literal["exact", "specee"]
    ) -> None:
        self.name: str = name
        self._controller, self._drafter, self._max_rows = controller, drafter, max_rows
        self._state_of_exits = TokenState.PROVISIONAL if name == "exact" else TokenState.VERIFIED

    def reset(self) -> None:
        self._controller.reset()

    def decode(self, state: Decoding) -> WorkAndEvents:
        self._controller.begin(state)
        self._drafter.begin([*state.prompt, *state.tokens])
        deferred: list[int] = []  # rows that exited
        exits: list[Exited] = []  # their tokens, as far as these are not verified: the answer's last ones
        yield self._add(state, ChosenToken(choose(state.logits, 0, state.sampler, state.rng), state.n_layer))
        while not state.is_last:
            began = state.clock()
            depth = min(self._max_rows - len(deferred), state.room)
            drafts = self._drafter.propose(state, Budget(1, depth, state.room)).tokens
            state.stats.draft_seconds += state.clock() - began
            rows = [(yield Append(state.tokens[-1], state.row))]
            for draft in drafts[:-1]:  # the last one is what the last row must exit with
                rows.append((yield Append(draft, rows[-1])))
            state.stats.rows += len(rows)
            chosen = yield from self._exit(state, rows, drafts)
            if chosen:
                for position, (state.row, token) in enumerate(zip(rows, chosen, strict=True)):
                    if self._state_of_exits is TokenState.PROVISIONAL:
                        exits.append(Exited(token, self._drafter.sources[position], position))
                    else:
                        state.stats.count_draft(self._drafter.sources[position], position, True)
                    yield self._add(state, token, self._state_of_exits)
                    if state.is_last:
                        break
                deferred += rows
                if not state.is_last and len(deferred) <= self._max_rows // 2:
                    continue
                rows, drafts = [], ()
            yield from self._complete(state, deferred, exits, rows, drafts)
            deferred.clear()
            exits.clear()

    def _add(self, state: Decoding, chosen: ChosenToken, of: TokenState = TokenState.VERIFIED) -> TokenEvent:
        """The answer grows; drafters hear of it."""
        event = state.add(chosen, of)
        self._controller.accept(chosen.token)
        self._drafter.accept(chosen.token)
        return event

    def _exit(
        self, state: Decoding, rows: Sequence[int], drafts: Sequence[int]
    ) -> Generator[Work, Any, list[ChosenToken]]:
        """The hyper-token from armed exit layer to armed exit layer: the drafts with their exit, or nothing."""
        rules, schedule, stats = self._controller.rules, self._controller.schedule, state.stats
        others = self._controller.candidates(state) if drafts else ()
        candidates = [tuple(dict.fromkeys([draft, *drafts, *others]))[: rules.k] for draft in drafts]
        repeats = rules.no_repeat and any(a == b for a, b in zip([state.tokens[-1], *drafts], drafts, strict=False))
        armed = schedule.armed() if drafts and not repeats and min(map(len, candidates)) == rules.k else ()
        probes: list[Probe] = []
        exit_layer, logprobs = None, None
        for layer in armed:
            result: ExitResult = yield RunToExit(rows[-1], (layer,), rules.k, candidates[-1], rules.threshold)
            probes.append(Probe(layer, result.scores[0]))
            if result.stop_index == 0:
                logprobs = yield from self._all_may_exit(state, rows, drafts, candidates)
            if logprobs is not None:
                exit_layer = layer
                break
        stats.armed += len(armed) * len(rows)
        stats.probes += len(probes)
        stats.all_exits += len(rows) if exit_layer is not None else 0
        for _ in rows:
            stats.schedule_hits += schedule.record(exit_layer)
        if exit_layer is None or logprobs is None:
            return []
        sources = self._drafter.sources
        return [
            ChosenToken(draft, exit_layer, tuple(probes), candidates[i], drafter=sources[i], logprobs=logprobs[i])
            for i, draft in enumerate(drafts)
        ]

    def _all_may_exit(
        self, state: Decoding, rows: Sequence[int], drafts: Sequence[int], candidates: Sequence[tuple[int, ...]]
    ) -> Generator[Work, Any, list[Logprobs] | None]:
        """Whether the rows before the last one may exit too, and the full-head check gives every draft.

        Then the drafts' logprobs, as that check has them, else None.
        """
        for row, these in zip(rows[:-1], candidates, strict=False):
            if (yield ProbeRow(row, these)) <= self._controller.rules.threshold:
                return None
        rng = copy.deepcopy(state.rng)  # the numbers that these tokens would be drawn with
        agreed, logprobs = True, []
        for row, draft in zip(rows, drafts, strict=True):
            state.stats.checks += 1
            agreed = choose((yield LensHead(row)), 0, state.sampler, rng) == draft
            if not agreed:
                state.stats.checks_failed += 1
                break
            logprobs.append(state.sampler.logprobs(draft) if self.name == "specee" else ())
            state.sampler.accept(draft)
        state.rewind_sampler(len(state.tokens))
        if agreed and self.name == "specee" and not state.sampler.is_greedy:
            for _ in drafts:  # they are used up
                state.rng.random()
        return logprobs if agreed else None

    def _complete(
        self,
        state: Decoding,
        deferred: Sequence[int],
        exits: Sequence[Exited],
        rows: Sequence[int],
        drafts: Sequence[int],
    ) -> Steps:
        """All rows in flight to the top; their logits verify the exits, then the drafts of `rows`."""
        stats = state.stats
        logits = state.logits = yield Complete(logits=bool(exits or rows))
        stats.steps += 1
        first = len(state.tokens) - len(exits)
        state.rewind_sampler(first)
        for i, exited in enumerate(exits):
            token = choose(logits, i, state.sampler, state.rng)
            stats.tested += 1
            stats.count_draft(exited.drafter, exited.position, token == exited.chosen.token)
            if token != exited.chosen.token:
                rejected = state.event(first + i, exited.chosen, TokenState.ROLLED_BACK)
                stats.rolled_back += len(exits) - i
                del state.tokens[first + i :]
                self._controller.roll_back(len(exits) - i)
                self._drafter.begin([*state.prompt, *state.tokens])
                yield rejected
                yield self._add(state, ChosenToken(token, state.n_layer))
                state.row = deferred[i]
                break
            stats.accepted += 1
            state.sampler.accept(token)
            yield state.event(first + i, exited.chosen, TokenState.VERIFIED)
        else:
            n_accepted = 0
            for j, row in enumerate(rows):
                token = choose(logits, len(deferred) + j, state.sampler, state.rng)
                accepted = j < len(drafts) and token == drafts[j]
                source = self._drafter.sources[j] if accepted else None
                yield self._add(state, ChosenToken(token, state.n_layer, drafter=source))
                n_accepted += accepted
                state.row = row
                if not accepted or state.is_last:
                    break
            stats.count_drafts(self._drafter.sources[: len(drafts)], n_accepted)
        yield Commit(state.row)
