"""Pipelined decoding against the fake engine, whose early layers agree with the last one with a given chance."""

from __future__ import annotations

import pytest
from answers import FREE, Oracle, answer
from fakes import FakeEngine, FakeSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.pipelined import Pipelined
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.termination import FixedLength

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


def drafted(stages: tuple[int, ...], width: int | None, oracle: Oracle) -> Pipelined:
    """By this guesser alone."""
    drafter = ChainDrafter([oracle], CostModel(FREE), None, FixedLength(len(stages) * (width or 4)))
    return Pipelined(stages, drafter, width, lens=False)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    error_rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    stages=st.sampled_from(STAGES),
    width=st.sampled_from([None, 1, 2, 4]),
    temperature=st.sampled_from([0.0, 0.8]),
    stops=st.sampled_from([(), (5, 9, 13)]),
    n=st.integers(1, 60),
    n_ctx=st.sampled_from([12, 256]),
)
def test_with_a_drafter_it_is_dense(
    seed: int,
    error_rate: float,
    stages: tuple[int, ...],
    width: int | None,
    temperature: float,
    stops: tuple[int, ...],
    n: int,
    n_ctx: int,
) -> None:
    def fresh() -> tuple[FakeEngine, FakeSampler]:
        return FakeEngine(seed, stop_tokens=stops, n_ctx=n_ctx), FakeSampler(temperature, 1.1)

    _, _, dense = answer(Dense(), *fresh(), n, seed)
    stats, events, tokens = answer(drafted(stages, width, Oracle(dense, error_rate, seed)), *fresh(), n, seed)
    assert tokens == dense
    assert sum(event.drafter is not None for event in events) == stats.accepted <= stats.tested
    assert stats.steps <= max(0, len(tokens) - 1)


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("width", [1, 3])
def test_with_right_drafts_each_turn_has_a_batch_in_each_stage(stages: tuple[int, ...], width: int) -> None:
    _, _, dense = answer(Dense(), FakeEngine(1), FakeSampler(), 100)
    engine = FakeEngine(1)
    stats, _, _ = answer(drafted(stages, width, Oracle(dense, 0.0, 1)), engine, FakeSampler(), 100)
    n_turns = engine.context.computations - 1  # but for the prompt
    assert n_turns <= -(-100 // width) + len(stages)
    assert stats.accepted == stats.tested


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_right_guesses_are_all_accepted(stages: tuple[int, ...], temperature: float) -> None:
    engine = FakeEngine(1, early_agreement=1.0)
    stats, _, _ = answer(Pipelined(stages), engine, FakeSampler(temperature), 101)
    assert stats.accepted == stats.tested > 95
    n_runs = sum(name == "advance" for name, _, _ in engine.calls)
    assert n_runs <= 100 * len(stages), "no stage runs twice"


@pytest.mark.parametrize("stages", STAGES)
def test_a_wrong_guess_never_enters_the_last_stage(stages: tuple[int, ...]) -> None:
    _, _, dense = answer(Dense(), FakeEngine(1), FakeSampler(), 60)
    engine = FakeEngine(1)
    stats, _, tokens = answer(drafted(stages, 1, Oracle(dense, 0.5, 1)), engine, FakeSampler(), 60)
    assert 0 < stats.accepted < stats.tested
    rows = [n for name, n, end in engine.calls if name == "advance" and end == engine.n_layer]
    assert rows == [1] * (len(tokens) - 1)
