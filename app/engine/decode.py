"""One answer by a policy, after its prompt: the one place where the engine process starts to decode."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from specee.app.engine.backend import Backend
from specee.app.options import Sampling
from specee.predictors.decoding import driver
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.state import Decoding, begin_decoding
from specee.predictors.types import Sampler, TokenEvent


def begin(
    backend: Backend,
    prompt: Sequence[int],
    sampler: Sampler,
    seed: int | tuple[int, int],
    max_tokens: int,
    given: Sequence[int] = (),
) -> Decoding:
    """The state of the answer after a prefill of `prompt`, and of the tokens `given` that it begins with.

    What follows these is what a dense policy that chose them would choose: it draws one number for each token.
    """
    rng = np.random.default_rng(seed)
    state = begin_decoding(backend.engine, prompt, sampler, rng, max_tokens, time.perf_counter)
    for token in given:
        state.tokens.append(token)
        sampler.accept(token)
        if not sampler.is_greedy:
            rng.random()
    return state


def decode(
    backend: Backend, policy: Policy, prompt: Sequence[int], sampling: Sampling, seed: int, max_tokens: int
) -> tuple[Decoding, Iterator[TokenEvent]]:
    """The same and its token events, where nothing else is answered.

    Close the events where they are not read to their end.
    """
    state = begin(backend, prompt, backend.sampler(sampling), seed, max_tokens)
    return state, _events(backend, policy, state)


def _events(backend: Backend, policy: Policy, state: Decoding) -> Iterator[TokenEvent]:
    try:
        yield from driver.run(policy, backend.engine, state)
    finally:
        state.sampler.close()
