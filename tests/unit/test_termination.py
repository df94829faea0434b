"""When drafts end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.predictors.cost_model import CostModel
from specee.predictors.drafters.termination import (
    AdaptiveThreshold,
    BestLength,
    FixedLength,
    HeuristicLength,
    Termination,
)

PROBS = (0.9, 0.8, 0.7, 0.6, 0.5)


@pytest.mark.parametrize(
    ("rule", "length"),
    [
        (FixedLength(3), 3),
        (FixedLength(9), 5),
        (HeuristicLength(2), 2),
        (AdaptiveThreshold(0.5), 3),  # .9, .72, .504, .302
        (BestLength(CostModel({1: 1.0, 8: 1.01})), 5),
        (BestLength(CostModel({1: 1.0, 8: 8.0})), 0),
    ],
)
def test_length(rule: Termination, length: int) -> None:
    assert rule.length(PROBS, 0.0) == length
    assert rule.length((), 0.0) == 0


def test_the_heuristic_grows_by_two_and_shrinks_by_one() -> None:
    rule = HeuristicLength(1)
    rule.learn(1, 1)
    assert rule.length(PROBS, 0.0) == 3
    rule.learn(3, 2)
    assert rule.length(PROBS, 0.0) == 2
    for _ in range(5):
        rule.learn(2, 0)
    assert rule.length(PROBS, 0.0) == 1


@given(st.integers(1, 7), st.booleans())
def test_the_threshold_adapts_to_the_acceptance(drafted: int, right: bool) -> None:
    rule = AdaptiveThreshold()
    before = rule.threshold
    for _ in range(2000):
        rule.learn(drafted, drafted if right else 0)
    assert rule.threshold < before if right else rule.threshold > before
    assert 0.0 <= rule.threshold <= 1.0
