"""Draft chains against the fake engine."""

from __future__ import annotations

from typing import Any

import pytest
from answers import FREE, Oracle, answer
from fakes import FakeEngine, FakeSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.chain import Chain
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.early_rejection import EarlyRejection
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.guess import DraftSoFar, Guess
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.drafters.termination import AdaptiveThreshold, FixedLength, HeuristicLength


class CostlyOracle(Oracle):
    """An oracle that takes time."""

    def __init__(self, answer: list[int], seconds: float, prob: float = 0.9) -> None:
        super().__init__(answer, 0.0, 0)
        self.seconds, self.prob = seconds, prob
        self.asked = 0

    def is_worth(self, cost: CostModel, draft: DraftSoFar) -> bool:
        return cost.saving(draft.probs, draft.seconds, draft.free, self.prob, self.seconds) > 0

    def guess(self, context: Any, row: Any) -> Guess | None:
        self.asked += 1
        return super().guess(context, row)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    error_rate=st.floats(0, 1),
    temperature=st.sampled_from([0.0, 0.8]),
    penalty=st.sampled_from([1.0, 1.3]),
    stops=st.sampled_from([(), (5,), (5, 9, 13)]),
    n=st.integers(1, 40),
    n_ctx=st.sampled_from([12, 256]),
    max_drafts=st.integers(1, 7),
    termination=st.sampled_from([lambda: None, lambda: FixedLength(3), HeuristicLength, AdaptiveThreshold]),
)
def test_chains_generate_what_dense_generates(
    seed: int,
    error_rate: float,
    temperature: float,
    penalty: float,
    stops: tuple[int, ...],
    n: int,
    n_ctx: int,
    max_drafts: int,
    termination: Any,
) -> None:
    """Greedy and sampled: the same random numbers give the same tokens, whatever is drafted."""

    def fresh() -> tuple[FakeEngine, FakeSampler]:
        return FakeEngine(seed, stop_tokens=stops, n_ctx=n_ctx), FakeSampler(temperature, penalty)

    _, _, dense = answer(Dense(), *fresh(), n, seed)
    for guesser in (Oracle(dense, error_rate, seed), SuffixGuesser()):
        drafter = ChainDrafter([guesser], CostModel(FREE), termination=termination())
        stats, events, tokens = answer(Chain(drafter, max_drafts), *fresh(), n, seed)
        assert tokens == dense
        assert stats.tokens == len(dense) and stats.accepted <= stats.tested
        assert sum(e.drafter is not None for e in events) == stats.accepted
        assert stats.rows == stats.steps + stats.tested
        assert sum(sum(d.drafted) for d in stats.drafts.values()) == stats.tested
        assert sum(sum(d.accepted) for d in stats.drafts.values()) == stats.accepted


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    error_rate=st.floats(0, 1),
    agreement=st.floats(0, 1),
    threshold=st.floats(0, 1),
    temperature=st.sampled_from([0.0, 0.8]),
    penalty=st.sampled_from([1.0, 1.3]),
    n=st.integers(1, 40),
    n_ctx=st.sampled_from([12, 256]),
)
def test_early_rejection_does_not_change_the_text(
    seed: int,
    error_rate: float,
    agreement: float,
    threshold: float,
    temperature: float,
    penalty: float,
    n: int,
    n_ctx: int,
) -> None:
    """Also where the lens is wrong and right drafts are rejected."""

    def fresh() -> tuple[FakeEngine, FakeSampler]:
        return FakeEngine(seed, early_agreement=agreement, n_ctx=n_ctx), FakeSampler(temperature, penalty)

    _, _, dense = answer(Dense(), *fresh(), n, seed)
    drafter = ChainDrafter([Oracle(dense, error_rate, seed)], CostModel(FREE))
    policy = Chain(drafter, 7, early=EarlyRejection(6, 4, threshold))
    stats, events, tokens = answer(policy, *fresh(), n, seed)
    assert tokens == dense
    assert sum(e.drafter is not None for e in events) == stats.accepted <= stats.tested


def test_wrong_drafts_leave_early() -> None:
    _, _, dense = answer(Dense(), FakeEngine(1), FakeSampler(), 33)
    engine = FakeEngine(1, early_agreement=1.0, score_range=(0.6, 1.0))
    drafter = ChainDrafter([Oracle(dense, 1.0, 0)], CostModel(FREE))
    stats, _, tokens = answer(Chain(drafter, 7, early=EarlyRejection(6, 4, 0.5)), engine, FakeSampler(), 33)
    assert tokens == dense
    assert stats.accepted == 0 and stats.rejected_early > 0.9 * stats.tested
    assert sum(rows for name, rows, depth in engine.calls if name == "advance" and depth == 12) < 40


def test_right_drafts_make_few_steps() -> None:
    _, _, dense = answer(Dense(), FakeEngine(1), FakeSampler(), 33)
    oracle = Oracle(dense, 0.0, 0)
    stats, events, _ = answer(Chain(ChainDrafter([oracle], CostModel(FREE)), 7), FakeEngine(1), FakeSampler(), 33)
    assert stats.steps == 4 and stats.accepted == 28
    assert all(oracle.learned)
    assert {e.drafter for e in events} == {"oracle", None}


def test_nothing_is_drafted_where_rows_are_dear() -> None:
    _, _, dense = answer(Dense(), FakeEngine(1), FakeSampler(), 33)
    cost = CostModel({1: 1.0, 2: 2.0, 8: 8.0})
    stats, _, _ = answer(Chain(ChainDrafter([Oracle(dense, 0.0, 0)], cost), 7), FakeEngine(1), FakeSampler(), 33)
    assert stats.tested == 0 and stats.steps == 32


def test_best_length() -> None:
    cost = CostModel({1: 1.0, 2: 1.1, 4: 1.3, 8: 2.0})
    assert cost.best_length([]) == 0
    assert cost.best_length([0.05]) == 0
    assert cost.best_length([0.5]) == 1
    assert cost.best_length([0.05, 1.0, 1.0]) == 0
    assert cost.best_length([0.98] * 7) == 7
    assert cost.step(3) == pytest.approx(1.2)
    assert cost.step(16) == pytest.approx(4.0)


def test_best_length_counts_the_time_of_drafting() -> None:
    cost = CostModel({1: 1.0, 2: 1.1, 4: 1.3, 8: 2.0})
    assert cost.best_length([0.05]) == 0
    assert cost.best_length([0.05], 2.0) == 1, "a long step with its drafting: one more row matters less"


def test_saving() -> None:
    cost = CostModel({1: 1.0, 2: 1.0, 8: 1.0})
    assert cost.saving([], 0.0, 0.0, 0.5, 0.25) == pytest.approx(1 - 1.25 / 1.5)
    assert cost.saving([], 0.0, 0.5, 0.5, 0.25) < 0, "no better than what is free"
    assert cost.saving([], 0.0, 0.0, 0.5, 0.6) < 0, "dearer than what it brings"
    assert cost.saving([0.5], 0.25, 0.0, 0.5, 0.25) == pytest.approx(1.25 / 1.5 - 1.5 / 1.75)
    assert cost.saving([0.1], 0.25, 0.0, 0.5, 0.25) < 0, "hardly ever gets there"


@pytest.mark.parametrize(("seconds", "asked"), [(0.1, True), (0.9, False)])
def test_a_costly_guesser_is_asked_where_it_pays(seconds: float, asked: bool) -> None:
    _, _, dense = answer(Dense(), FakeEngine(1), FakeSampler(), 33)
    oracle = CostlyOracle(dense, seconds)
    drafter = ChainDrafter([], CostModel({1: 1.0, 8: 1.2}), oracle)
    stats, _, tokens = answer(Chain(drafter, 7), FakeEngine(1), FakeSampler(), 33)
    assert tokens == dense
    assert (oracle.asked > 0) is asked and (stats.accepted > 20) is asked


def test_cost_follows_the_machine_but_not_its_hiccups() -> None:
    cost = CostModel({1: 1.0, 2: 1.1})
    for _ in range(200):
        cost.record(1, 1.4)
    assert cost.step(1) == pytest.approx(1.4, rel=0.01)
    cost.record(1, 50.0)
    assert cost.step(1) == pytest.approx(1.4, rel=0.06), "one slow step says little"
    for _ in range(200):
        cost.record(1, 5.0)
    assert cost.step(1) == pytest.approx(5.0, rel=0.01), "many of them say that it is slower"
    assert cost.step(2) >= cost.step(1), "for batches that did not run too"


def test_more_rows_never_take_less_time() -> None:
    cost = CostModel({1: 50.0, 2: 1.1, 4: 1.3})
    assert cost.step(1) == cost.step(2) == 1.1, "one row was measured at a bad moment"
    for _ in range(400):
        cost.record(4, 1.0)
    assert cost.step(1) <= cost.step(2) <= cost.step(4) == pytest.approx(1.0, rel=0.01)
