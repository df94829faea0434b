"""One answer by a policy, after its prompt: the one place where the engine process starts a policy."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import cast

import numpy as np

from specee.app.engine.backend import Backend
from specee.app.options import Sampling
from specee.predictors.decoding import Policy
from specee.predictors.types import TokenEvent


def decode(
    backend: Backend, policy: Policy, prompt: Sequence[int], sampling: Sampling, seed: int, max_tokens: int
) -> Generator[TokenEvent, None, None]:
    """The policy's token events after a prefill of `prompt`. Close it where it is not run to its end."""
    sampler = backend.sampler(sampling)
    sampler.rewind(prompt)
    events = policy.generate(backend.engine, sampler, np.random.default_rng(seed), max_tokens, prompt)
    return cast(Generator[TokenEvent, None, None], events)
