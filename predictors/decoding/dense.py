"""Plain decoding: every row goes through all layers before the next starts."""

from __future__ import annotations

from specee.predictors.decoding.policy import Steps, forward
from specee.predictors.decoding.state import Decoding, Proposal
from specee.predictors.verify import choose


class Dense:
    """What all others are measured by."""

    name = "dense"

    def reset(self) -> None:
        """Nothing is kept between answers."""

    def decode(self, state: Decoding) -> Steps:
        while True:
            token = choose(state.logits, 0, state.sampler, state.rng)
            yield state.add(Proposal(token, state.n_layer))
            if state.is_last:
                return
            yield from forward(state)
