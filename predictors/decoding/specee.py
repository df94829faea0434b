"""The paper's policy: the token of an exit is final (SpecEE, ISCA 2025, sections 4 and 5).

Unlike the paper's code it never leaves holes in the K/V of the skipped layers: they are propagated from the exit's
state (`kv="propagate"`), or the deferred layers run later, for several rows in one batch (`kv="complete"`).
"""

from __future__ import annotations

from specee.predictors.decoding.exit_controller import ExitController
from specee.predictors.decoding.policy import WorkAndEvents
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.decoding.work import Append, Commit, Complete, LensHead, PropagateKV
from specee.predictors.verify import choose


class SpecEE:
    """Exits without verification."""

    name = "specee"

    def __init__(self, controller: ExitController) -> None:
        self._controller = controller

    def reset(self) -> None:
        self._controller.reset()

    def decode(self, state: Decoding) -> WorkAndEvents:
        controller, rules, stats = self._controller, self._controller.rules, state.stats
        controller.begin(state)
        chosen = ChosenToken(choose(state.logits, 0, state.sampler, state.rng), state.n_layer)
        n_deferred = 0
        while True:
            yield state.add(chosen)
            controller.accept(chosen.token)
            if state.is_last:
                break
            row = yield Append(chosen.token, state.row)
            chosen = yield from controller.run(state, row)
            state.row = row
            stats.tested, stats.accepted = stats.checks, stats.checks - stats.checks_failed
            if chosen.exit_layer == state.n_layer:  # no exit: rows in flight reach the top with it
                state.logits = yield Complete(logits=n_deferred == 0)
                if n_deferred:  # only this row needs the LM head
                    state.logits = yield LensHead(row)
                token = choose(state.logits, 0, state.sampler, state.rng)
                chosen = ChosenToken(token, state.n_layer, chosen.probes, chosen.candidates)
            elif rules.kv == "propagate":
                yield PropagateKV(row)
            elif n_deferred + 1 >= rules.max_pending:
                yield Complete()
            else:
                n_deferred += 1
                continue
            yield Commit(row)
            stats.steps += chosen.exit_layer == state.n_layer or rules.kv == "complete"
            n_deferred = 0
        if n_deferred:
            yield Complete()
            yield Commit(state.row)
            stats.steps += 1
