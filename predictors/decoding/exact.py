"""Exits that are verified: the answer is the dense model's, token for token (greedy) or in distribution (sampling).

The token of an exit is provisional and the next row starts on it. The deferred layers run later, for several rows in
one batch; their logits verify each token in turn. At the first rejection everything after it is rolled back and
decoding goes on from the token that the dense model chose.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from specee.predictors.decoding.exit_controller import ExitController
from specee.predictors.decoding.policy import Steps
from specee.predictors.decoding.state import Decoding, Proposal
from specee.predictors.decoding.work import Append, Commit, Complete, Work
from specee.predictors.types import TokenEvent, TokenState
from specee.predictors.verify import choose, verify


class Exact:
    """Exits now, verification later."""

    name = "exact"

    def __init__(self, exits: ExitController) -> None:
        self._exits = exits

    def reset(self) -> None:
        self._exits.reset()

    def decode(self, state: Decoding) -> Steps:
        exits = self._exits
        exits.begin(state)
        rows: list[int] = []  # in flight
        proposals: list[Proposal] = []  # of these rows' exits: the answer's last tokens, not verified yet
        proposal = Proposal(choose(state.logits, 0, state.sampler, state.rng), state.n_layer)
        while True:
            exited = proposal.exit_layer < state.n_layer
            yield state.add(proposal, TokenState.PROVISIONAL if exited else TokenState.VERIFIED)
            exits.accept(proposal.token)
            if exited:
                proposals.append(proposal)
            is_last = state.is_last
            if proposals and (is_last or len(proposals) >= exits.rules.max_pending):
                corrected = yield from self._verify(state, rows, proposals)
                if corrected is not None:
                    proposal = corrected
                    continue
            if is_last:
                return
            row = yield Append(proposal.token, state.row)
            rows.append(row)
            proposal = yield from exits.run(state, row)
            state.row = row
            if proposal.exit_layer == state.n_layer:  # no exit: this row and those with deferred layers go to the top
                n = len(proposals)
                corrected = yield from self._verify(state, rows, proposals)
                if corrected is not None:
                    proposal = corrected
                else:
                    token = choose(state.logits, n, state.sampler, state.rng)
                    proposal = Proposal(token, state.n_layer, proposal.probes, proposal.candidates)

    def _verify(
        self, state: Decoding, rows: list[int], proposals: list[Proposal]
    ) -> Generator[Work | TokenEvent, Any, Proposal | None]:
        """Run the deferred layers of all rows in flight and verify their proposals, oldest first; clears both lists.

        Gives the dense model's token in place of the first rejected one (from there on all is rolled back), or None
        when all are accepted.
        """
        logits = state.logits = yield Complete(logits=True)
        state.stats.steps += 1
        first = len(state.tokens) - len(proposals)
        corrected = None
        accepted = 0
        if proposals:
            state.rewind_sampler(first)
        for proposal in proposals:
            token, stands = verify(logits, accepted, state.sampler, proposal.token, proposal.q, state.rng)
            if not stands:
                corrected = Proposal(token, state.n_layer)
                break
            accepted += 1
            state.sampler.accept(token)
            yield state.event(first + accepted - 1, proposal, TokenState.VERIFIED)
        state.stats.tested += accepted + (corrected is not None)
        state.stats.accepted += accepted
        state.row = rows[accepted] if corrected is not None else rows[-1]
        yield Commit(state.row)
        if corrected is not None:
            n = len(proposals) - accepted
            rejected = state.event(first + accepted, proposals[accepted], TokenState.ROLLED_BACK)
            state.stats.rolled_back += n
            del state.tokens[first + accepted :]
            self._exits.roll_back(n)
            yield rejected
        rows.clear()
        proposals.clear()
        return corrected
