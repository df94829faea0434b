"""Several decodings side by side against the fake engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import FakeContext, FakeEngine, FakeSampler, advance_together, make_calibration, replay
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.cost_model import CostModel
from specee.predictors.decoding import driver
from specee.predictors.decoding.build_policy import build_policy
from specee.predictors.decoding.chain import Chain
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.policy import Policy, WorkAndEvents
from specee.predictors.decoding.scheduler import Running, Scheduler
from specee.predictors.decoding.state import ChosenToken, Decoding, begin_decoding
from specee.predictors.decoding.work import Advance, Append, Commit, Forward
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.exits.rules import ExitRules
from specee.predictors.types import TokenEvent

PROMPT = [1, 2, 3, 1, 2]
CALIBRATION = make_calibration()


def make_policy(name: str, engine: FakeEngine) -> Policy:
    if name == "chain":
        return Chain(ChainDrafter([SuffixGuesser()], CostModel({1: 1.0, 8: 1.01})), 7)
    return build_policy(name, CALIBRATION, ExitRules(threshold=0.4, max_pending=3), engine.draft)


def begin(engine: FakeEngine, n: int, seed: int = 0, temperature: float = 0.0, number: int = 0) -> Decoding:
    prompt = [*PROMPT, number]
    engine.prefill(prompt)
    return begin_decoding(engine, prompt, FakeSampler(temperature), np.random.default_rng(seed), n)


class Slots:
    """Engines of one context, what decodes in them, and what they generated."""

    def __init__(self, number: int, **engine: Any) -> None:
        self.context = FakeContext()
        self.engines = [FakeEngine(3, context=self.context, **engine) for _ in range(number)]
        self.scheduler = Scheduler(advance_together)
        self.events: dict[Running, list[TokenEvent]] = {}

    def start(self, number: int, policy: Policy | str = "dense", **options: Any) -> Running:
        engine = self.engines[number]
        state = begin(engine, number=number, **options)
        policy = make_policy(policy, engine) if isinstance(policy, str) else policy
        running = self.scheduler.start(policy, engine, state)
        self.events[running] = []
        return running

    def turn(self, **options: Any) -> list[Running]:
        events = list(self.scheduler.turn(**options))
        for running, event in events:
            self.events[running].append(event)
        return [running for running, _ in events]

    def run(self) -> None:
        for _ in range(1000):
            if all(running.ended for running in self.events):
                return
            self.turn()
        raise AssertionError("it does not end")


def undrafted(events: list[TokenEvent]) -> list[TokenEvent]:
    """Without what drafted them: nothing is drafted beside other answers."""
    return [replace(event, drafter=None) for event in events]


def alone(policy: str, **options: Any) -> list[TokenEvent]:
    engine = FakeEngine(3)
    return list(driver.run(make_policy(policy, engine), engine, begin(engine, **options)))


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.sampled_from(["dense", "exact", "specee", "chain"]), min_size=1, max_size=5),
    lengths=st.lists(st.integers(1, 25), min_size=5, max_size=5),
    waits=st.lists(st.integers(0, 6), min_size=5, max_size=5),
    temperature=st.sampled_from([0.0, 0.8]),
    seed=st.integers(0, 100),
)
def test_each_answer_is_what_it_is_alone(
    names: list[str], lengths: list[int], waits: list[int], temperature: float, seed: int
) -> None:
    """Whatever runs beside it, whenever that begins and ends; no logits are read after they were overwritten."""
    slots = Slots(len(names))
    started = []
    for i, name in enumerate(names):
        started.append(slots.start(i, name, n=lengths[i], seed=seed + i, temperature=temperature))
        for _ in range(waits[i] + 1):  # one at least: it reads the logits of its prompt
            slots.turn()
    slots.run()
    for i, name in enumerate(names):
        expected = alone(name, n=lengths[i], seed=seed + i, temperature=temperature, number=i)
        assert undrafted(slots.events[started[i]]) == undrafted(expected)
        assert not slots.engines[i].in_flight
        assert slots.engines[i].tokens == [*PROMPT, i, *replay(expected)][:-1]


def begin_all(slots: Slots, policies: list[Any], n: int = 10) -> list[Running]:
    """All of them, so that each has asked for its first computation."""
    running = []
    for i, policy in enumerate(policies):
        running.append(slots.start(i, policy, n=n))
        slots.turn()
    slots.context.batches.clear()
    return running


def test_steps_of_all_slots_are_one_batch() -> None:
    slots = Slots(4)
    begin_all(slots, ["dense"] * 4)
    computations = slots.context.computations
    slots.turn()
    assert slots.context.computations == computations + 1
    assert slots.context.batches == [[1, 1, 1, 1]]


def test_one_decoding_makes_no_batches_and_asks_for_no_depths() -> None:
    slots = Slots(1)
    slots.engines[0].depth = None  # type: ignore[assignment, method-assign]
    slots.start(0, n=10)
    slots.run()
    assert not slots.context.batches


class Rows:
    """Steps of `n` rows, of which the first is committed."""

    name = "rows"

    def __init__(self, n: int, begin: int = 0) -> None:
        self.n, self.begin = n, begin

    def reset(self) -> None: ...

    def decode(self, state: Decoding) -> WorkAndEvents:
        while True:
            yield state.add(ChosenToken(state.logits.greedy(0, state.sampler), state.n_layer))
            if state.is_last:
                return
            rows = [(yield Append(state.tokens[-1], state.row))]
            for token in range(self.n - 1):
                rows.append((yield Append(token, rows[-1])))
            if self.begin:
                yield Advance(tuple(rows), self.begin)
            state.logits = yield Advance(tuple(rows), state.n_layer, logits=True)
            state.row = rows[0]
            yield Commit(rows[0])


def test_a_batch_has_as_many_rows_as_get_equal_bits() -> None:
    slots = Slots(5)
    began = begin_all(slots, [Rows(3), Rows(4), Rows(3), "dense", Rows(8)])
    assert sorted(map(id, slots.turn())) == sorted(map(id, began)), "each has its computation in every turn"
    assert slots.context.batches == [[3, 4], [3, 1]]  # and the eight rows alone


def test_rows_of_other_depths_are_other_batches() -> None:
    slots = Slots(3)
    begin_all(slots, [Rows(2, begin=6), "dense", "dense"])
    for _ in range(4):
        slots.turn()
    assert slots.context.batches == [[1, 1]] * 4


def test_a_slow_policy_does_not_hold_up_the_others() -> None:
    slots = Slots(2)
    dense, _exact = begin_all(slots, ["dense", "exact"])
    for _ in range(5):
        before = len(slots.events[dense])
        slots.turn()
        assert len(slots.events[dense]) == before + 1


def test_a_stopped_decoding_leaves_no_rows_and_does_not_disturb_the_others() -> None:
    slots = Slots(3)
    stopped, *others = begin_all(slots, ["chain", "exact", "dense"], n=20)
    for _ in range(4):
        slots.turn()
    slots.scheduler.stop(stopped)
    slots.scheduler.stop(stopped)  # again: nothing
    assert stopped.ended and stopped.error is None and not slots.engines[0].in_flight
    n = len(slots.events[stopped])
    slots.run()
    assert len(slots.events[stopped]) == n
    for i, (running, name) in enumerate(zip(others, ["exact", "dense"], strict=True), 1):
        assert undrafted(slots.events[running]) == undrafted(alone(name, n=20, number=i))


class Failing(Dense):
    """`where` says what fails after some tokens."""

    def __init__(self, where: str) -> None:
        self.where = where

    def decode(self, state: Decoding) -> WorkAndEvents:
        for item in (items := super().decode(state)):
            while isinstance(item, Forward):
                if len(state.tokens) == 4 and self.where == "policy":
                    raise RuntimeError("scripted failure")
                item = items.send((yield item))
            yield item


@pytest.mark.parametrize("where", ["policy", "append"])
def test_what_fails_in_one_answer_is_that_answers_alone(where: str) -> None:
    slots = Slots(3)
    failing, *others = begin_all(slots, [Failing(where), "dense", "dense"], n=20)
    if where == "append":
        slots.engines[0].n_ctx = 10
    slots.run()
    assert isinstance(failing.error, RuntimeError if where == "policy" else AssertionError)
    assert not slots.engines[0].in_flight
    for i, running in enumerate(others, 1):
        assert running.error is None and slots.events[running] == alone("dense", n=20, number=i)


def test_a_batch_that_fails_ends_the_answers_in_it() -> None:
    slots = Slots(3)
    running = begin_all(slots, ["dense", "dense", "exact"], n=20)

    def fail(*arguments: Any) -> None:
        raise RuntimeError("scripted failure")

    slots.scheduler._advance_together = fail
    slots.turn()
    assert all(isinstance(r.error, RuntimeError) and r.ended for r in running[:2])
    assert not slots.engines[0].in_flight and not slots.engines[1].in_flight
    slots.scheduler._advance_together = advance_together
    slots.run()
    assert slots.events[running[2]] == alone("exact", n=20, number=2)
    again = slots.start(0, n=20)  # the slot is as good as new
    slots.run()
    assert slots.events[again] == alone("dense", n=20, number=0)


def test_only_times_of_steps_that_ran_alone_count() -> None:
    slots = Slots(2)
    one = slots.start(0, n=12)
    seen = []
    for number in range(10):
        if number == 3:
            two = slots.start(1, n=4)
        slots.turn(alone=number != 8)
        seen.append(one.state.alone)
    assert two.ended
    # the second one runs in turns 3 to 5; before turn 8 the engine did something else
    assert seen == [True, True, True, False, False, False, False, True, False, False]
