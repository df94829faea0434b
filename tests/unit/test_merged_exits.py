"""Exits of drafted rows against the fake engine."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from answers import FREE, Oracle, answer
from fakes import FakeEngine, FakeSampler, make_calibration
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.build_policy import make_drafter, make_schedule
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.exit_controller import ExitController
from specee.predictors.decoding.merged_exits import MergedExits
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.exits.rules import ExitRules
from specee.predictors.types import TokenState

CALIBRATION = make_calibration()


def merged(engine: FakeEngine, guesser: Any, rules: ExitRules, name: Literal["exact", "specee"]) -> MergedExits:
    controller = ExitController(rules, make_schedule(CALIBRATION, rules), make_drafter(rules, engine.draft))
    return MergedExits(controller, ChainDrafter([guesser], CostModel(FREE)), 8, name)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    error_rate=st.floats(0, 1),
    agreement=st.floats(0, 1),
    threshold=st.floats(0, 1),
    temperature=st.sampled_from([0.0, 0.8]),
    penalty=st.sampled_from([1.0, 1.3]),
    stops=st.sampled_from([(), (5,), (5, 9, 13)]),
    arm_all=st.booleans(),
    n=st.integers(1, 40),
    n_ctx=st.sampled_from([12, 256]),
)
def test_exact_with_drafts_is_dense(
    seed: int,
    error_rate: float,
    agreement: float,
    threshold: float,
    temperature: float,
    penalty: float,
    stops: tuple[int, ...],
    arm_all: bool,
    n: int,
    n_ctx: int,
) -> None:
    """Greedy and sampled: exits are provisional, and dense decoding's random numbers verify them."""

    def fresh() -> tuple[FakeEngine, FakeSampler]:
        engine = FakeEngine(
            seed, early_agreement=agreement, stop_tokens=stops, n_ctx=n_ctx, score_range=(threshold / 2, 1.0)
        )
        return engine, FakeSampler(temperature, penalty)

    rules = ExitRules(threshold=threshold, arm_all=arm_all)
    _, _, dense = answer(Dense(), *fresh(), n, seed)
    for guesser in (Oracle(dense, error_rate, seed), SuffixGuesser()):
        engine, sampler = fresh()
        stats, events, tokens = answer(merged(engine, guesser, rules, "exact"), engine, sampler, n, seed)
        assert tokens == dense
        assert stats.tokens == len(dense)
        assert stats.exits == sum(e.state is TokenState.VERIFIED and e.exit_layer < 12 for e in events)
        assert stats.steps == sum(call[0] == "advance" and call[2] == engine.n_layer for call in engine.calls)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", ["exact", "specee"])
def test_all_exits_are_right_where_early_layers_agree(name: Any, temperature: float) -> None:
    """Half of the drafts are wrong: those never exit, the others mostly do."""
    rules = ExitRules(threshold=0.1, arm_all=True, no_repeat=False)
    _, _, dense = answer(Dense(), FakeEngine(3), FakeSampler(temperature, 1.1), 80, 3)
    engine = FakeEngine(3, early_agreement=1.0, score_range=(0.2, 1.0))
    policy = merged(engine, Oracle(dense, 0.1, 0), rules, name)
    stats, events, tokens = answer(policy, engine, FakeSampler(temperature, 1.1), 80, 3)
    assert tokens == dense
    assert stats.exits > 20 and stats.rolled_back == 0 and stats.steps < 79
    assert {e.drafter for e in events} <= {"oracle", None}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), temperature=st.sampled_from([0.0, 0.8]), stops=st.sampled_from([(), (5, 9)]))
def test_specee_with_drafts_keeps_its_rows_in_order(seed: int, temperature: float, stops: tuple[int, ...]) -> None:
    engine = FakeEngine(seed, early_agreement=0.6, stop_tokens=stops, score_range=(0.3, 1.0))
    policy = merged(engine, SuffixGuesser(), ExitRules(threshold=0.4, arm_all=True), "specee")
    stats, events, tokens = answer(policy, engine, FakeSampler(temperature), 60, seed)
    assert stats.tokens == len(tokens) and not any(engine.marks)
    assert all(e.state is TokenState.VERIFIED for e in events)
