"""Exits that are verified: the answer is the dense model's, token for token (greedy) or in distribution (sampling).

The token of an exit is provisional and the next row starts on it. The deferred layers run later, for several rows in
one batch; their logits verify each token in turn. At the first rejection everything after it is rolled back and
decoding goes on from the token that the dense model chose.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from specee.predictors.decoding.exit_controller import ExitController
from specee.predictors.decoding.policy import WorkAndEvents
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import Append, Commit, Complete, Work
from specee.predictors.types import TokenEvent, TokenState
from specee.predictors.verify import choose, verify


class Exact:
    """Exits now, verification later."""

    name = "exact"

    def __init__(self, controller: ExitController) -> None:
        self._controller = controller

    def reset(self) -> None:
        self._controller.reset()

    def decode(self, state: Decoding) -> WorkAndEvents:
        controller = self._controller
        controller.begin(state)
        rows: list[int] = []  # in flight
        unverified: list[ChosenToken] = []  # of these rows' exits: the answer's last tokens, not verified yet
        chosen = ChosenToken(choose(state.logits, 0, state.sampler, state.rng), state.n_layer)
        while True:
            exited = chosen.exit_layer < state.n_layer
            yield state.add(chosen, TokenState.PROVISIONAL if exited else TokenState.VERIFIED)
            controller.accept(chosen.token)
            if exited:
                unverified.append(chosen)
            is_last = state.is_last
            if unverified and (is_last or len(unverified) >= controller.rules.max_pending):
                corrected = yield from self._verify(state, rows, unverified)
                if corrected is not None:
                    chosen = corrected
                    continue
            if is_last:
                return
            row = yield Append(chosen.token, state.row)
            rows.append(row)
            chosen = yield from controller.run(state, row)
            state.row = row
            if chosen.exit_layer == state.n_layer:  # no exit: this row and those with deferred layers go to the top
                n = len(unverified)
                corrected = yield from self._verify(state, rows, unverified)
                if corrected is not None:
                    chosen = corrected
                else:
                    token = choose(state.logits, n, state.sampler, state.rng)
                    chosen = ChosenToken(token, state.n_layer, chosen.probes, chosen.candidates)

    def _verify(
        self, state: Decoding, rows: list[int], unverified: list[ChosenToken]
    ) -> Generator[Work | TokenEvent, Any, ChosenToken | None]:
        """Run the deferred layers of all rows in flight and verify the tokens of their exits, oldest first.

        Clears both lists. Gives the dense model's token in place of the first rejected one (from there on all is rolled
        back), or None when all are accepted.
        """
        logits = state.logits = yield Complete(logits=True)
        state.stats.steps += 1
        first = len(state.tokens) - len(unverified)
        corrected = None
        accepted = 0
        if unverified:
            state.rewind_sampler(first)
        for chosen in unverified:
            token, stands = verify(logits, accepted, state.sampler, chosen.token, chosen.q, state.rng)
            if not stands:
                corrected = ChosenToken(token, state.n_layer)
                break
            accepted += 1
            state.sampler.accept(token)
            yield state.event(first + accepted - 1, chosen, TokenState.VERIFIED)
        state.stats.tested += accepted + (corrected is not None)
        state.stats.accepted += accepted
        state.row = rows[accepted] if corrected is not None else rows[-1]
        yield Commit(state.row)
        if corrected is not None:
            n = len(unverified) - accepted
            rejected = state.event(first + accepted, unverified[accepted], TokenState.ROLLED_BACK)
            state.stats.rolled_back += n
            del state.tokens[first + accepted :]
            self._controller.roll_back(n)
            yield rejected
        rows.clear()
        unverified.clear()
        return corrected
