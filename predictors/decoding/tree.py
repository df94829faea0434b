"""Speculative decoding with draft trees (SpecInfer, ASPLOS 2024, section 4): alternatives for a place rise together.

The first child of each row continues the principal chain, whose rows have the bits of dense decoding; only these are
committed, and only their logits choose tokens. Where the chosen token is a side row's, the step ends there, and the
token is computed anew in the next one. What the side rows say follows it is then a draft that is nearly always right.
"""

from __future__ import annotations

import copy

from specee.predictors.acceptance import RULES, Acceptance
from specee.predictors.decoding.policy import WorkAndEvents
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import Advance, Append, Commit
from specee.predictors.drafters.base import Budget, DraftTree
from specee.predictors.drafters.tree import TreeDrafter
from specee.predictors.verify import choose


class Tree:
    """Verifies a tree of drafts in every step; the drafter may propose none."""

    name = "tree"

    def __init__(self, drafter: TreeDrafter, max_drafts: int, acceptance: Acceptance = RULES["exact"]) -> None:
        self._drafter, self._max_drafts, self._acceptance = drafter, max_drafts, acceptance

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
            tree = drafter.propose(state, Budget(1, min(self._max_drafts, state.room), state.room))
            drafted = state.clock()
            rows = [(yield Append(state.tokens[-1], state.row))]
            for draft, parent in zip(tree.tokens, tree.parents, strict=True):
                rows.append((yield Append(draft, rows[parent + 1])))
            state.logits = yield Advance(tuple(rows), state.n_layer, logits=True)
            seconds = state.clock() - drafted
            slowness = seconds / drafter.cost.step(len(rows))  # of the machine in this step
            if state.alone:
                drafter.cost.record(len(rows), seconds)
            stats.rows += len(rows)
            stats.steps += 1
            accepted: list[int] = []
            at = -1  # the draft whose row's logits are read, -1 for the first row
            while True:
                children = tree.children(at)
                proposed = tree.tokens[children[0]] if children else None
                token = self._acceptance.next(state.logits, at + 1, state.sampler, state.rng, proposed)
                hit = next((child for child in children if tree.tokens[child] == token), None)
                yield state.add(
                    ChosenToken(token, state.n_layer, drafter=None if hit is None else drafter.sources[hit])
                )
                drafter.accept(token)
                if hit is not None:
                    accepted.append(hit)
                if state.is_last or hit is None or hit != children[0]:
                    break
                at = hit
            if hit is not None:
                drafter.side_rows.known = self._foresee(state, tree, hit)
            state.row = rows[at + 1]  # that of the token before the last one
            yield Commit(state.row)
            stats.draft_seconds += drafted - began
            if state.alone:
                stats.step_seconds += seconds
                stats.dense_seconds += (len(accepted) + (hit is None)) * drafter.cost.step(1) * slowness
            stats.count_tree(tree, drafter.sources, accepted)

    def _foresee(self, state: Decoding, tree: DraftTree, at: int | None) -> list[int]:
        """What most probably follows the last token, which draft `at` is: as far as its own row and those below say."""
        tokens: list[int] = []
        rng = copy.deepcopy(state.rng)
        while at is not None:
            tokens.append(self._acceptance.foresee(state.logits, at + 1, state.sampler, rng))
            state.sampler.accept(tokens[-1])
            at = next((child for child in tree.children(at) if tree.tokens[child] == tokens[-1]), None)
        state.rewind_sampler(len(state.tokens))
        return tokens
