"""Plain decoding: every row goes through all layers before the next starts."""

from __future__ import annotations

from specee.predictors.decoding.policy import WorkAndEvents, forward
from specee.predictors.decoding.state import ChosenToken, Decoding
from specee.predictors.verify import choose


class Dense:
    """What all others are measured by."""

    name = "dense"

    def reset(self) -> None:
        """Nothing is kept from one answer to the next."""

    def decode(self, state: Decoding) -> WorkAndEvents:
        while True:
            token = choose(state.logits, 0, state.sampler, state.rng)
            yield state.add(ChosenToken(token, state.n_layer))
            if state.is_last:
                return
            yield from forward(state)
