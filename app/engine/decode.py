"""One answer by a policy, after its prompt: the one place where the engine process starts a policy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from specee.app.engine.backend import Backend
from specee.app.options import Sampling
from specee.predictors.decoding import driver
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.state import Decoding, begin_decoding
from specee.predictors.types import TokenEvent


def decode(
    backend: Backend, policy: Policy, prompt: Sequence[int], sampling: Sampling, seed: int, max_tokens: int
) -> tuple[Decoding, Iterator[TokenEvent]]:
    """The state of the answer, and its token events, after a prefill of `prompt`.

    Close the events where they are not read to their end.
    """
    rng = np.random.default_rng(seed)
    state = begin_decoding(backend.engine, prompt, backend.sampler(sampling), rng, max_tokens, time.perf_counter)
    return state, driver.run(policy, backend.engine, state)
