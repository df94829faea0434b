"""Drafters: what they propose, and how they roll back."""

from __future__ import annotations

from dataclasses import dataclass

from fakes import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from specee.predictors.decoding.build_policy import make_drafter
from specee.predictors.drafters.base import Budget
from specee.predictors.drafters.combined import CombinedDrafter
from specee.predictors.drafters.linear_head import LinearHeadDrafter
from specee.predictors.drafters.ngram import NGramDrafter
from specee.predictors.exits.rules import ExitRules


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
