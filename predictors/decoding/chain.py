"""Speculative decoding with draft chains (Leviathan et al., ICML 2023): several tokens a step, the dense model's.

The last token and the drafted ones go through all layers in one batch; each row's logits give the token that
follows it. By the rule of exact match that is the one that dense decoding chooses with the same random numbers.
"""

from __future__ import annotations

from specee.predictors.acceptance import RULES, Acceptance
from specee.predictors.decoding.early_rejection import EarlyRejection
from specee.predictors.decoding.policy import WorkAndEvents
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import Advance, Append, Commit
from specee.predictors.drafters.base import Budget
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.verify import choose


class Chain:
    """Verifies a chain of drafts in every step; the drafter may propose none."""

    name = "chain"

    def __init__(
        self,
        drafter: ChainDrafter,
        max_drafts: int,
        acceptance: Acceptance = RULES["exact"],
        early: EarlyRejection | None = None,
    ) -> None:
        self._drafter, self._max_drafts, self._acceptance, self._early = drafter, max_drafts, acceptance, early

    def reset(self) -> None:
        """Nothing is kept of a conversation but what the drafter learned."""

    def decode(self, state: Decoding) -> WorkAndEvents:
        drafter, stats = self._drafter, state.stats
        drafter.begin([*state.prompt, *state.tokens])
        token = choose(state.logits, 0, state.sampler, state.rng)
        yield state.add(ChosenToken(token, state.n_layer))
        drafter.accept(token)
        while not state.is_last:
            began = state.clock()
            budget = Budget(width=1, depth=min(self._max_drafts, state.room), room=state.room)
            drafts = drafter.propose(state, budget).tokens
            drafted = state.clock()
            stats.draft_seconds += drafted - began
            rows = [(yield Append(state.tokens[-1], state.row))]
            for draft in drafts:
                rows.append((yield Append(draft, rows[-1])))
            n_kept = len(rows)
            if self._early is not None and drafts:
                n_kept = yield from self._early.keep(state, rows, drafts)
            state.logits = yield Advance(tuple(rows[:n_kept]), state.n_layer, logits=True)
            seconds = state.clock() - drafted
            slowness = 1.0  # of the machine in this step
            if state.alone and n_kept == len(rows):
                slowness = seconds / drafter.cost.step(n_kept)
                drafter.cost.record(n_kept, seconds)
            stats.rows += len(rows)
            stats.steps += 1
            n_accepted = 0
            for i in range(n_kept):
                proposed = drafts[i] if i < len(drafts) else None
                token = self._acceptance.next(state.logits, i, state.sampler, state.rng, proposed)
                accepted = token == proposed
                yield state.add(ChosenToken(token, state.n_layer, drafter=drafter.sources[i] if accepted else None))
                drafter.accept(token)
                n_accepted += accepted
                if not accepted or state.is_last:
                    break
            state.row = rows[i]  # that of the token before the last one
            yield Commit(state.row)
            if state.alone:
                stats.step_seconds += seconds
                stats.dense_seconds += (n_accepted + 1) * drafter.cost.step(1) * slowness
            stats.count_drafts(drafter.sources, n_accepted)
