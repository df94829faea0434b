"""Pipelined decoding against the fake engine, whose early layers agree with the last one with a given chance."""

from __future__ import annotations

import pytest
from answers import answer
from fakes import FakeEngine, FakeSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.pipelined import Pipelined

STAGES = [(6, 12), (4, 8, 12), (2, 4, 6, 8, 12)]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    agreement=st.floats(0, 1),
    stages=st.sampled_from(STAGES),
    temperature=st.sampled_from([0.0, 0.8]),
    penalty=st.sampled_from([1.0, 1.3]),
    stops=st.sampled_from([(), (5,), (5, 9, 13)]),
    n=st.integers(1, 60),
    n_ctx=st.sampled_from([12, 256]),
)
def test_pipelined_is_dense(
    seed: int,
    agreement: float,
    stages: tuple[int, ...],
    temperature: float,
    penalty: float,
    stops: tuple[int, ...],
    n: int,
    n_ctx: int,
) -> None:
    def fresh() -> tuple[FakeEngine, FakeSampler]:
        engine = FakeEngine(seed, early_agreement=agreement, stop_tokens=stops, n_ctx=n_ctx)
        return engine, FakeSampler(temperature, penalty)

    _, _, dense = answer(Dense(), *fresh(), n, seed)
    stats, events, tokens = answer(Pipelined(stages), *fresh(), n, seed)
    assert tokens == dense
    assert sum(event.drafter is not None for event in events) == stats.accepted <= stats.tested
    assert stats.steps == max(0, len(tokens) - 1)


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_right_guesses_are_all_accepted(stages: tuple[int, ...], temperature: float) -> None:
    engine = FakeEngine(1, early_agreement=1.0)
    stats, _, _ = answer(Pipelined(stages), engine, FakeSampler(temperature), 101)
    assert stats.accepted == stats.tested > 95
    assert sum(name == "advance" for name, _, _ in engine.calls) < 100 * len(stages) + 30, "no stage runs twice"
