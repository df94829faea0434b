"""A small model that drafts, against fake engines and a clock that they drive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import FakeEngine, FakeSampler, replay
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.cost_model import CostModel
from specee.predictors.decoding import driver
from specee.predictors.decoding.chain import Chain
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.state import begin_decoding
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.draft_engine import RowDraftEngine
from specee.predictors.drafters.guess import DraftSoFar
from specee.predictors.drafters.small_model import CHUNK, SmallModelGuesser
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.types import Floats

PROMPT = [1, 2, 3, 1, 2]
LARGE = {1: 1.0, 8: 1.2}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedEngine(FakeEngine):
    """Drives a clock: a batch of n rows takes `times`. Of the text's next tokens it knows a share like the other."""

    def __init__(self, clock: Clock, times: dict[int, float], knows: float = 1.0, **fields: Any) -> None:
        super().__init__(**fields)
        self.clock, self.times, self.knows = clock, CostModel(times), knows
        self.batches: list[int] = []

    def advance(self, rows: Any, end: int, logits: bool = False) -> None:
        super().advance(rows, end, logits)
        self._took(len(rows))

    def prefill(self, tokens: Any) -> int:
        n = len(tokens) - self.length
        super().prefill(tokens)
        self._took(n)
        return 0

    def _took(self, n: int) -> None:
        self.batches.append(n)
        self.clock.now += self.times.step(n)

    def _logits(self, text: Any, depth: int) -> Floats:
        if self.knows < 1.0 and self._rng(text, depth, "knows").random() > self.knows:
            return self._rng(text, depth, "errs").normal(size=self.n_vocab).astype(np.float32) * 2
        return super()._logits(text, depth)


def decode(policy: Any, engine: Any, sampler: FakeSampler, n: int, prompt: list[int], clock: Any, seed: int = 0) -> Any:
    """The events of an answer, its tokens, and the time that decoding took."""
    engine.in_flight = {}
    engine.prefill(prompt)
    began = clock()
    state = begin_decoding(engine, prompt, sampler, np.random.default_rng(seed), n, clock)
    events = list(driver.run(policy, engine, state))
    return events, replay(events), clock() - began


def make(clock: Clock, small: FakeEngine, seconds: float, free: Any = ()) -> tuple[Chain, SmallModelGuesser]:
    guesser = SmallModelGuesser(RowDraftEngine(small, FakeSampler(1.0)), {1: seconds, 8: 1.5 * seconds}, 24, clock)
    return Chain(ChainDrafter(free, CostModel(LARGE), guesser), 7), guesser


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    knows=st.floats(0, 1),
    seconds=st.sampled_from([0.001, 0.1, 0.6]),
    temperature=st.sampled_from([0.0, 0.8]),
    penalty=st.sampled_from([1.0, 1.3]),
    stops=st.sampled_from([(), (5,), (5, 9, 13)]),
    n=st.integers(1, 40),
    n_ctx=st.sampled_from([12, 256]),
    small_ctx=st.sampled_from([8, 20, 256]),
    suffix=st.booleans(),
)
def test_text_is_that_of_dense(
    seed: int,
    knows: float,
    seconds: float,
    temperature: float,
    penalty: float,
    stops: tuple[int, ...],
    n: int,
    n_ctx: int,
    small_ctx: int,
    suffix: bool,
) -> None:
    """Greedy and sampled, several answers after one another, whatever the small model drafts."""
    clock = Clock()

    def large() -> TimedEngine:
        return TimedEngine(clock, LARGE, seed=seed, stop_tokens=stops, n_ctx=n_ctx)

    small = TimedEngine(clock, {1: seconds}, knows, seed=seed, n_ctx=small_ctx)
    chain, _ = make(clock, small, seconds, [SuffixGuesser()] if suffix else [])
    for prompt in (PROMPT, [*PROMPT, 7], PROMPT[:2], [9, 9, 9]):
        _, dense, _ = decode(Dense(), large(), FakeSampler(temperature, penalty), n, prompt, clock, seed)
        _, tokens, _ = decode(chain, large(), FakeSampler(temperature, penalty), n, prompt, clock, seed)
        assert tokens == dense
        assert small.n_in_flight == 0 and small.length <= small_ctx


def test_accepted_tokens_are_not_computed_again() -> None:
    clock = Clock()
    small = TimedEngine(clock, {1: 0.05}, seed=1)
    chain, _ = make(clock, small, 0.05)
    events, tokens, _ = decode(chain, TimedEngine(clock, LARGE, seed=1), FakeSampler(), 65, PROMPT, clock)
    assert {e.drafter for e in events} == {"model", None}
    assert sum(small.batches) == small.length, "each token once"
    assert (PROMPT + tokens)[: small.length] == small.tokens
    assert small.batches[0] == len(PROMPT) + 1, "prompt and first token in one batch"


def test_two_conversations_may_share_the_engine() -> None:
    clock = Clock()
    small = TimedEngine(clock, {1: 0.02}, seed=1)
    both = [make(clock, small, 0.02)[0] for _ in range(2)]
    prompts = ([1, 2, 3], [4, 5, 6])
    larges = [TimedEngine(clock, LARGE, seed=1) for _ in both]
    events: list[list[Any]] = [[], []]
    running = []
    for large, chain, prompt in zip(larges, both, prompts, strict=True):
        large.prefill(prompt)
        state = begin_decoding(large, prompt, FakeSampler(), np.random.default_rng(0), 60, clock)
        running.append(driver.run(chain, large, state))
    for _ in range(60):
        for one, seen in zip(running, events, strict=True):
            seen.append(next(one))
    for large, prompt, seen in zip(larges, prompts, events, strict=True):
        text = [*prompt, *(e.token for e in seen)]
        assert large.tokens[:-1] == text[: large.length - 1]
        drafted = [e for e in seen if e.drafter]
        assert len(drafted) > 20, "what it drafts is right for its conversation"


def test_rejected_tokens_are_rolled_back() -> None:
    clock = Clock()
    small = TimedEngine(clock, {1: 0.02}, 0.7, seed=1)
    chain, _ = make(clock, small, 0.02)
    _, tokens, _ = decode(chain, TimedEngine(clock, LARGE, seed=1), FakeSampler(), 65, PROMPT, clock)
    assert any(name == "roll_back" for name, _, _ in small.calls)
    text, drafted = PROMPT + tokens, small.tokens
    assert drafted[: len(text) - 8] == text[: len(drafted)][: len(text) - 8]


@pytest.mark.parametrize(
    ("knows", "seconds", "at_least"), [(1.0, 0.05, 3.0), (0.9, 0.1, 1.5), (0.6, 0.1, 1.05), (0.5, 0.9, 0.97)]
)
def test_it_is_asked_where_it_pays(knows: float, seconds: float, at_least: float) -> None:
    """In time on the fake clock: decoding is faster where the small model is good and cheap, and hardly slower else."""
    clock = Clock()
    large = TimedEngine(clock, LARGE, seed=1, n_ctx=4000)
    small = TimedEngine(clock, {1: seconds, 8: 1.5 * seconds}, knows, seed=1, n_ctx=4000)
    chain, _ = make(clock, small, seconds)
    _, dense, slow = decode(Dense(), large, FakeSampler(), 400, PROMPT, clock)
    _, tokens, fast = decode(chain, large, FakeSampler(), 400, PROMPT, clock)
    assert tokens == dense
    assert slow / fast > at_least


def test_a_model_that_is_never_right_is_hardly_asked_after_a_while() -> None:
    clock = Clock()
    small = TimedEngine(clock, {1: 0.1, 8: 0.15}, 0.0, seed=1, n_ctx=4000)
    chain, _ = make(clock, small, 0.1)
    large = TimedEngine(clock, LARGE, seed=1, n_ctx=4000)
    decode(chain, large, FakeSampler(), 200, PROMPT, clock)
    small.batches.clear()
    _, _, took = decode(chain, large, FakeSampler(), 400, [3, *PROMPT], clock)
    assert sum(0.15 for n in small.batches) < 0.03 * took
    assert small.batches, "but it is asked now and then"


def test_a_model_that_gets_better_is_found_out() -> None:
    clock = Clock()
    small = TimedEngine(clock, {1: 0.1, 8: 0.15}, 0.0, seed=1, n_ctx=9000)
    chain, _ = make(clock, small, 0.1)
    large = TimedEngine(clock, LARGE, seed=1, n_ctx=9000)
    decode(chain, large, FakeSampler(), 200, PROMPT, clock)
    small.knows = 1.0
    decode(chain, large, FakeSampler(), 3000, [3], clock)
    events, _, _ = decode(chain, large, FakeSampler(), 100, [4], clock)
    assert sum(e.drafter == "model" for e in events) > 50


def test_a_long_text_is_read_in_parts_and_only_for_a_long_answer() -> None:
    clock = Clock()
    small = TimedEngine(clock, {1: 0.1, 8: 0.2}, seed=1, n_ctx=4000)
    guesser = SmallModelGuesser(RowDraftEngine(small, FakeSampler(1.0)), {1: 0.1, 8: 0.2}, 24, clock)
    text = [i % 24 for i in range(600)]
    guesser.begin(text)
    cost = CostModel(LARGE)
    assert not guesser.is_worth(cost, DraftSoFar([], 0.0, 0.0, 5))
    assert guesser.is_worth(cost, DraftSoFar([], 0.0, 0.0, 500))
    assert guesser.guess(text[-16:], 0) is None and small.length == CHUNK
    assert guesser.guess(text[-16:], 0) is None
    assert guesser.guess(text[-16:], 0) is not None and small.tokens == text


def test_padding_tokens_that_the_large_model_lacks_are_not_drafted() -> None:
    clock = Clock()
    small = TimedEngine(clock, {1: 0.1}, seed=1)
    guesser = SmallModelGuesser(RowDraftEngine(small, FakeSampler(1.0)), {1: 0.1}, 1, clock)
    guesser.begin(PROMPT)
    guesses = []
    for token in range(20):
        guesser.is_worth(CostModel(LARGE), DraftSoFar([], 0.0, 0.0, 500))
        guesses.append(guesser.guess([*PROMPT, *range(token)][-16:], 0))
        guesser.accept(token)
    assert all(guess is None or guess.token == 0 for guess in guesses)
