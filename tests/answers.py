"""Answers of policies to one prompt, and a guesser that knows them: for tests of policies."""

from __future__ import annotations

from typing import Any

import numpy as np
from fakes import FakeEngine, FakeSampler, replay

from specee.predictors.decoding import driver
from specee.predictors.decoding.state import begin_decoding
from specee.predictors.drafters.guess import Guess

PROMPT = [1, 2, 3, 1, 2]
FREE = {1: 1.0, 8: 1.01}
"""Times of steps of 1 and 8 rows."""


class Oracle:
    """Guesses what the engine will generate, with some errors: a guesser that knows."""

    def __init__(
        self, answer: list[int], error_rate: float, seed: int, prob: float = 0.9, name: str = "oracle"
    ) -> None:
        self.answer, self.error_rate, self.prob, self.name = answer, error_rate, prob, name
        self.rng = np.random.default_rng(seed)
        self.at = 0
        self.learned: list[bool] = []

    def begin(self, tokens: Any) -> None:
        self.at = len(tokens) - len(PROMPT)

    def guess(self, context: Any, row: Any) -> Guess | None:
        if row is not None:
            self.ahead = self.at
        token = self.answer[self.ahead] if self.ahead < len(self.answer) else 0
        self.ahead += 1
        if self.rng.random() < self.error_rate:
            token = (token + 1) % 24
        return Guess(token, self.prob, "known")

    def accept(self, token: int) -> None:
        self.at += 1

    def learn(self, kind: Any, hit: bool) -> None:
        self.learned.append(hit)


def answer(policy: Any, engine: FakeEngine, sampler: FakeSampler, n: int, seed: int = 0) -> Any:
    engine.prefill(PROMPT)
    state = begin_decoding(engine, PROMPT, sampler, np.random.default_rng(seed), n)
    events = list(driver.run(policy, engine, state))
    assert not engine.in_flight
    tokens = replay(events)
    assert engine.tokens == (PROMPT + tokens)[:-1]
    return state.stats, events, tokens


def text_probabilities(engine: FakeEngine, sampler: FakeSampler, length: int) -> dict[tuple[int, ...], float]:
    """Every text of so many tokens that dense decoding may draw, with its probability."""
    texts: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(length):
        longer: dict[tuple[int, ...], float] = {}
        for text, p in texts.items():
            engine.prefill([*PROMPT, *text])
            sampler.rewind([*PROMPT, *text])
            for token, q in zip(*engine.distribution(0, sampler), strict=True):
                longer[(*text, int(token))] = p * float(q)
        texts = longer
    return texts


def assert_drawn_from(probabilities: dict[tuple[int, ...], float], policy: Any, engine: Any, sampler: Any) -> None:
    """Chi-square of 2,000 texts."""
    rng, n = np.random.default_rng(0), 2_000
    length = len(next(iter(probabilities)))
    seen = dict.fromkeys(probabilities, 0)
    for _ in range(n):
        engine.prefill(PROMPT)
        state = begin_decoding(engine, PROMPT, sampler, rng, length)
        for _ in driver.run(policy, engine, state):
            pass
        seen[tuple(state.tokens)] += 1
    chi2 = sum((seen[text] - n * p) ** 2 / (n * p) for text, p in probabilities.items())
    df = len(probabilities) - 1
    assert chi2 < df + 4 * (2 * df) ** 0.5
