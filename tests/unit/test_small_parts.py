"""Rules, schedule, drafts, statistics."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from fakes import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from specee.predictors.decoding.stats import PolicyStats
from specee.predictors.drafters import Chain, LinearHead, NGram, build
from specee.predictors.drafters.combined import merge
from specee.predictors.errors import ArtifactError, PredictorError, RulesError
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule


def test_paper_rules_are_the_default() -> None:
    rules = ExitRules.paper()
    assert (rules.k, rules.n_hidden, rules.threshold, rules.recent_exits, rules.reach) == (4, 512, 0.5, 5, 2)
    assert rules.full_head_check and rules.rule == "predictor"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"k": 0}, "k = 0"),
        ({"threshold": 1.5}, "threshold = 1.5"),
        ({"threshold": float("nan")}, "threshold"),
        ({"rule": "guess"}, "'predictor' or 'margin'"),
        ({"kv": "holes"}, "'propagate' or 'complete'"),
        ({"max_pending": 0}, "max_pending"),
        ({"max_pending": 8}, "1 to 7 rows"),
        ({"sources": ("tea",)}, "'tea'"),
        ({"sources": ()}, "sources"),
        ({"ngram_min": 4}, "n-grams"),
        ({"colour": 1}, "no rule 'colour'"),
    ],
)
def test_bad_rules(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RulesError, match=said) as caught:
        ExitRules().with_(**change)
    assert "\n" not in caught.value.message


def test_errors_cross_processes() -> None:
    for error in (RulesError("a"), ArtifactError("b", "c"), PredictorError("d", "e")):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error) and (back.title, back.message) == (error.title, error.message)


def test_schedule_levels() -> None:
    schedule = Schedule([4, 6, 8, 10], [8], recent_exits=2, reach=2)
    assert schedule.armed() == (8,)
    assert not schedule.note(8)
    assert schedule.armed() == (6, 8, 10)
    assert schedule.note(10)
    assert schedule.online() == {6, 8, 10}
    assert not schedule.note(None)
    assert schedule.armed() == (8, 10)
    schedule.note(None)
    assert schedule.armed() == (8,)
    schedule.note(4)
    schedule.reset()
    assert schedule.armed() == (8,)
    assert Schedule([4, 6], [], arm_all=True).armed() == (4, 6)


def test_ngram_prefers_long_contexts_then_counts_then_recency() -> None:
    source = NGram(longest=2, shortest=1)
    source.begin([1, 2, 3, 9, 2, 4, 9, 2, 5, 7, 2, 5, 1, 2])
    assert source.draft(None, 0, 2, 4) == [3, 5, 4]
    source.accept(5)
    assert source.stats.hits == 1
    assert source.draft(None, 0, 5, 4) == [1, 7]


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=20))
def test_ngram_withdraw_is_as_if_never_accepted(text: list[int], more: list[int]) -> None:
    source, other = NGram(3, 1), NGram(3, 1)
    source.begin(text)
    other.begin(text)
    for token in more:
        source.accept(token)
    source.withdraw(len(more))
    assert source._followers == other._followers
    assert source._tokens == other._tokens


def test_chain_fills_distinct_candidates(engine: FakeEngine) -> None:
    chain = Chain([NGram(3, 1), LinearHead()], share=1)
    chain.begin(engine.tokens)
    words = chain.draft(engine, 4, 2, 4)
    assert words[0] == 3
    assert len(set(words)) == 4
    linear = chain.sources[1]
    assert linear.stats.asked == 1
    full = Chain([NGram(3, 1), LinearHead()], share=4)
    full.begin([1, 2, 1, 3, 1, 4, 1, 5, 1])
    assert full.draft(engine, 4, 1, 4) == [5, 4, 3, 2]
    assert full.sources[1].stats.asked == 0
    assert [s.name for s in build(ExitRules()).sources] == ["ngram", "linear"]


def test_merge() -> None:
    assert merge([1, 2], [2, 3, 4], 3) == [1, 2, 3]


def test_stats_add_up() -> None:
    a, b = PolicyStats(tokens=2, exit_layers=20, passes=1), PolicyStats(tokens=2, exit_layers=24, passes=1)
    assert (a + b).mean_exit_layer == 11
    assert (a + b).tokens_per_pass == 2
    assert PolicyStats().as_dict()["acceptance"] == 1.0
