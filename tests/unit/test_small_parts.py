"""Rules, schedule, drafters, statistics."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from fakes import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from specee.predictors.decoding.build_policy import make_drafter
from specee.predictors.decoding.stats import DecodingStats
from specee.predictors.drafters.base import Budget
from specee.predictors.drafters.combined import CombinedDrafter
from specee.predictors.drafters.linear_head import LinearHeadDrafter
from specee.predictors.drafters.ngram import NGramDrafter
from specee.predictors.errors import CalibrationFileError, PredictorError, RulesError
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule
from specee.predictors.repetition import loop_start


def test_the_defaults_of_the_paper() -> None:
    rules = ExitRules()
    assert (rules.k, rules.n_hidden, rules.threshold, rules.recent_exits, rules.reach) == (4, 512, 0.5, 5, 2)
    assert rules.full_head_check and rules.rule == "predictor"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k = 0"),
        ({"threshold": 1.5}, "threshold = 1.5"),
        ({"threshold": float("nan")}, "threshold"),
        ({"rule": "guess"}, "'predictor' or 'margin'"),
        ({"kv": "holes"}, "'propagate' or 'complete'"),
        ({"max_pending": 0}, "max_pending"),
        ({"drafters": ("tea",)}, "'tea'"),
        ({"drafters": ()}, "drafters"),
        ({"ngram_min": 4}, "n-grams"),
        ({"colour": 1}, "no rule 'colour'"),
    ],
)
def test_bad_rules(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RulesError, match=message) as caught:
        ExitRules().with_(**change)
    assert "\n" not in caught.value.message


def test_errors_cross_processes() -> None:
    for error in (RulesError("a"), CalibrationFileError("b", "c"), PredictorError("d", "e")):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error) and (back.title, back.message) == (error.title, error.message)


def test_schedule_levels() -> None:
    schedule = Schedule([4, 6, 8, 10], [8], recent_exits=2, reach=2)
    assert schedule.armed() == (8,)
    assert not schedule.record(8)
    assert schedule.armed() == (6, 8, 10)
    assert schedule.record(10)
    assert schedule.online() == {6, 8, 10}
    assert not schedule.record(None)
    assert schedule.armed() == (8, 10)
    schedule.record(None)
    assert schedule.armed() == (8,)
    schedule.record(4)
    schedule.reset()
    assert schedule.armed() == (8,)
    assert Schedule([4, 6], [], arm_all=True).armed() == (4, 6)


@dataclass
class After:
    """What drafters see of an answer."""

    row: int
    tokens: list[int]


NOTHING = After(-1, [])


def test_ngram_prefers_long_contexts_then_counts_then_recency() -> None:
    drafter = NGramDrafter(longest=2, shortest=1)
    drafter.begin([1, 2, 3, 9, 2, 4, 9, 2, 5, 7, 2, 5, 1, 2])
    tree = drafter.propose(NOTHING, Budget(4))
    assert tree.tokens == (3, 5, 4)
    assert tree.parents == (-1, -1, -1)
    drafter.accept(5)
    assert drafter.stats.hits == 1
    assert drafter.propose(NOTHING, Budget(4)).tokens == (1, 7)


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=20))
def test_ngram_roll_back_is_as_if_never_accepted(text: list[int], more: list[int]) -> None:
    drafter, other = NGramDrafter(3, 1), NGramDrafter(3, 1)
    drafter.begin(text)
    other.begin(text)
    for token in more:
        drafter.accept(token)
    drafter.roll_back(len(more))
    assert drafter._followers == other._followers
    assert drafter._tokens == other._tokens


def test_combined_drafter_fills_distinct_candidates(engine: FakeEngine) -> None:
    ngram, linear = NGramDrafter(3, 1), LinearHeadDrafter(engine.draft)
    combined = CombinedDrafter([ngram, linear], share=1)
    combined.begin(engine.tokens)
    tokens = combined.propose(After(engine.tip, [2]), Budget(4)).tokens
    assert tokens[0] == 3
    assert len(set(tokens)) == 4
    assert linear.stats.asked == 1
    full = CombinedDrafter([ngram, linear], share=4)
    full.begin([1, 2, 1, 3, 1, 4, 1, 5, 1])
    assert full.propose(After(engine.tip, [1]), Budget(4)).tokens == (5, 4, 3, 2)
    assert linear.stats.asked == 1
    assert [d.name for d in make_drafter(ExitRules(), engine.draft).drafters] == ["ngram", "linear"]


def test_linear_head_needs_a_row_before() -> None:
    assert LinearHeadDrafter(FakeEngine().draft).propose(After(-1, [2]), Budget(4)).tokens == ()


@given(st.lists(st.integers(0, 2), max_size=60))
def test_loop_start_is_the_first_repeated_ngram(tokens: list[int]) -> None:
    last = loop_start(tokens, 3)
    grams = [tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)]
    if last is None:
        assert len(set(grams)) == len(grams)
    else:
        assert grams[last - 2] in grams[: last - 2]
        assert len(set(grams[: last - 2])) == last - 2


def test_stats_add_up() -> None:
    a, b = DecodingStats(tokens=2, exit_layers=20, steps=1), DecodingStats(tokens=2, exit_layers=24, steps=1)
    assert (a + b).mean_exit_layer == 11
    assert (a + b).tokens_per_step == 2
    assert DecodingStats().as_dict()["acceptance"] == 1.0
