"""Draft trees against the fake engine, whose side rows have logits that are a little wrong."""

from __future__ import annotations

import pytest
from answers import FREE, PROMPT, Oracle, answer, assert_drawn_from, text_probabilities
from fakes import FakeEngine, FakeSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.acceptance import RULES
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.tree import Tree
from specee.predictors.drafters.base import Budget
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.drafters.tree import TreeDrafter


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    errors=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    probs=st.tuples(st.floats(0.05, 0.99), st.floats(0.05, 0.99)),
    temperature=st.sampled_from([0.0, 0.8]),
    penalty=st.sampled_from([1.0, 1.3]),
    stops=st.sampled_from([(), (5,), (5, 9, 13)]),
    n=st.integers(1, 40),
    n_ctx=st.sampled_from([20, 256]),
    max_drafts=st.integers(1, 7),
)
def test_trees_generate_what_dense_generates(
    seed: int,
    errors: tuple[float, float],
    probs: tuple[float, float],
    temperature: float,
    penalty: float,
    stops: tuple[int, ...],
    n: int,
    n_ctx: int,
    max_drafts: int,
) -> None:
    def fresh() -> tuple[FakeEngine, FakeSampler]:
        return FakeEngine(seed, stop_tokens=stops, n_ctx=n_ctx), FakeSampler(temperature, penalty)

    _, _, dense = answer(Dense(), *fresh(), n, seed)
    guessers = [Oracle(dense, e, seed + i, p) for i, (e, p) in enumerate(zip(errors, probs, strict=True))]
    drafter = TreeDrafter([*guessers, SuffixGuesser()], CostModel(FREE))
    stats, events, tokens = answer(Tree(drafter, max_drafts), *fresh(), n, seed)
    assert tokens == dense
    assert stats.tokens == len(dense)
    assert sum(e.drafter is not None for e in events) == stats.accepted <= stats.tested
    assert stats.rows == stats.steps + stats.tested


def test_side_rows_stand_in_the_tree_and_their_next_token_is_a_draft() -> None:
    """The likelier guesser is always wrong, the other one always right: the chain is wrong, the side rows are right."""
    _, _, dense = answer(Dense(), FakeEngine(1), FakeSampler(), 41)
    wrong, right = Oracle(dense, 1.0, 0, 0.6, "wrong"), Oracle(dense, 0.0, 0, 0.5, "right")
    drafter = TreeDrafter([wrong, right], CostModel(FREE))
    drafter.begin(PROMPT)
    tree = drafter.propose(type("S", (), {"row": 0, "tokens": PROMPT})(), Budget(1, 7, 40))
    assert tree.parents[0] == -1 and tree.children(-1)[1:] and drafter.sources[tree.children(-1)[1]] == "right"
    _, events, tokens = answer(Tree(drafter, 7), FakeEngine(1), FakeSampler(), 41)
    assert tokens == dense
    assert "side row" in {e.drafter for e in events}


def test_no_side_rows_where_rows_are_dear() -> None:
    _, _, dense = answer(Dense(), FakeEngine(1), FakeSampler(), 33)
    dear = CostModel({1: 1.0, 2: 2.0, 8: 8.0})
    stats, _, _ = answer(Tree(TreeDrafter([Oracle(dense, 0.0, 0)], dear), 7), FakeEngine(1), FakeSampler(), 33)
    assert stats.tested == 0 and stats.steps == 32


@pytest.mark.parametrize("rule", ["exact", "rejection"])
def test_sampled_trees_have_the_dense_distribution(rule: str) -> None:
    engine, sampler = FakeEngine(11, n_vocab=6), FakeSampler(temperature=1.5, repeat_penalty=1.2, top_k=3)
    expected = text_probabilities(engine, sampler, 3)
    likely = list(max(expected, key=expected.__getitem__))
    guessers = [Oracle(likely, 0.3, 1, 0.9, "good"), Oracle(likely, 0.6, 2, 0.6, "bad")]
    assert_drawn_from(expected, Tree(TreeDrafter(guessers, CostModel(FREE)), 7, RULES[rule]), engine, sampler)
