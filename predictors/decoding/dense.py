"""Plain decoding: every row goes through all layers before the next starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from specee.predictors.decoding.policy import Step, is_last
from specee.predictors.decoding.stats import PolicyStats
from specee.predictors.types import Engine, Sampler, State, TokenEvent
from specee.predictors.verify import choose


class Dense:
    """The measure of all the others."""

    name = "dense"

    def __init__(self) -> None:
        self.stats = PolicyStats()

    def reset(self) -> None:
        """Nothing is kept between answers."""

    def generate(
        self,
        engine: Engine,
        sampler: Sampler,
        rng: np.random.Generator,
        max_tokens: int,
        history: Sequence[int] = (),
    ) -> Iterator[TokenEvent]:
        stats = self.stats = PolicyStats()
        for index in range(max_tokens):
            step = Step(choose(engine, 0, sampler, rng), engine.n_layer)
            sampler.accept(step.word)
            stats.tokens += 1
            stats.exit_layers += step.layer
            stop = engine.is_stop(step.word)
            yield TokenEvent(index, step.word, step.layer, State.VERIFIED, stop=stop)
            if is_last(engine, step, index + 1, max_tokens):
                return
            engine.advance(engine.length, 1, engine.n_layer, tokens=[step.word], logits=True)
            stats.rows += 1
            stats.passes += 1
