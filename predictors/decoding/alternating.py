"""Policies in turns, a stretch of the answer each: so they are compared on the work itself, and nobody waits for it.

All must say what dense says (dense and exact), so that the answer does not depend on whose turn it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol

import numpy as np

from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.stats import PolicyStats
from specee.predictors.types import Engine, Sampler, State, TokenEvent


class Referee(Protocol):
    """Says which policy decodes next."""

    def next_policy(self) -> tuple[int, int | None]:
        """Which policy, and for how many tokens; None: to the end of the answer."""
        ...

    def record(self, policy: int, tokens: int, seconds: float) -> None:
        """A policy has decoded so many tokens: fewer than it was given where the answer ended."""
        ...


class InTurns:
    """One answer by several policies."""

    name = "exact"

    def __init__(
        self, policies: Sequence[Policy], referee: Referee, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._policies, self._referee, self._clock = policies, referee, clock
        self._before = PolicyStats()  # of the turns that are over
        self._now: Policy | None = None

    @property
    def stats(self) -> PolicyStats:
        return self._before + self._now.stats if self._now is not None else self._before

    def reset(self) -> None:
        for policy in self._policies:
            policy.reset()

    def generate(
        self,
        engine: Engine,
        sampler: Sampler,
        rng: np.random.Generator,
        max_tokens: int,
        history: Sequence[int] = (),
    ) -> Iterator[TokenEvent]:
        self._before, self._now = PolicyStats(), None
        words: list[int] = []
        while len(words) < max_tokens:
            turn, length = self._referee.next_policy()
            rest = max_tokens - len(words)
            policy = self._policies[turn]
            begun, stop = len(words), False
            began = self._clock()
            steps = policy.generate(engine, sampler, rng, min(length or rest, rest), [*history, *words])
            self._before, self._now = self.stats, policy
            with closing(steps):  # type: ignore[type-var]
                for event in steps:
                    if event.state is State.VERIFIED:
                        words.append(event.token)
                        stop = event.stop
                    yield event if begun == 0 else replace(event, index=begun + event.index)
            self._referee.record(turn, len(words) - begun, self._clock() - began)
            if stop or len(words) >= max_tokens or engine.length >= engine.n_ctx:
                return
            # the next policy begins after the last word's row, as after a prompt
            engine.advance(engine.length, 1, engine.n_layer, tokens=[words[-1]], logits=True)
