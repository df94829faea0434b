"""Every lossless policy under a grammar, and with logprobs: dense's tokens and dense's logprobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from answers import FREE, Oracle, answer
from fakes import FakeEngine, FakeSampler, make_calibration
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.acceptance import RULES
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.build_policy import build_policy
from specee.predictors.decoding.chain import Chain
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.early_rejection import EarlyRejection
from specee.predictors.decoding.pipelined import Pipelined
from specee.predictors.decoding.tree import Tree
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.drafters.tree import TreeDrafter
from specee.predictors.exits.rules import ExitRules
from specee.predictors.types import TokenState

CALIBRATION = make_calibration()
Make = Callable[[FakeEngine, Any], Any]


def exits(name: str, rule: Any = "predictor", drafts: bool = False) -> Make:
    rules = ExitRules(threshold=0.3, arm_all=True, rule=rule)

    def make(engine: FakeEngine, guesser: Any) -> Any:
        chain = ChainDrafter([guesser], CostModel(FREE)) if drafts else None
        return build_policy(name, CALIBRATION, rules, engine.draft, chain)

    return make


DRAFTING: dict[str, Make] = {
    "chain": lambda engine, guesser: Chain(ChainDrafter([guesser], CostModel(FREE)), 7),
    "chain:early": lambda engine, guesser: Chain(
        ChainDrafter([guesser], CostModel(FREE)), 7, early=EarlyRejection(6, 4, 0.3)
    ),
    "tree": lambda engine, guesser: Tree(TreeDrafter([guesser, SuffixGuesser()], CostModel(FREE)), 7),
    "pipelined": lambda engine, guesser: Pipelined((6, 12)),
    "exact with drafts": exits("exact", drafts=True),
}
GREEDY: dict[str, Make] = {**DRAFTING, "exact": exits("exact"), "exact:margin": exits("exact", "margin")}


def verified(events: Sequence[Any]) -> list[tuple[int, Any]]:
    return [(e.token, e.logprobs) for e in events if e.state is TokenState.VERIFIED]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    error_rate=st.sampled_from([0.0, 0.3, 1.0]),
    agreement=st.sampled_from([0.5, 0.9]),
    temperature=st.sampled_from([0.0, 0.8]),
    penalty=st.sampled_from([1.0, 1.3]),
    forbidden=st.sampled_from([None, 2, 3, 7]),
    top_logprobs=st.sampled_from([None, 0, 5]),
    stops=st.sampled_from([(), (5, 9, 13)]),
)
def test_policies_keep_to_a_grammar_as_dense_does(
    seed: int,
    error_rate: float,
    agreement: float,
    temperature: float,
    penalty: float,
    forbidden: int | None,
    top_logprobs: int | None,
    stops: tuple[int, ...],
) -> None:
    """The sampler asserts that nothing forbidden is accepted, and that it goes back to what it had accepted."""

    def fresh() -> tuple[FakeEngine, FakeSampler]:
        engine = FakeEngine(seed, early_agreement=agreement, stop_tokens=stops)
        sampler = FakeSampler(temperature, penalty, forbidden=forbidden, top_logprobs=top_logprobs)
        return engine, sampler

    _, expected, dense = answer(Dense(), *fresh(), 30, seed)
    for name, make in (DRAFTING if temperature else GREEDY).items():
        engine, sampler = fresh()
        _, events, tokens = answer(make(engine, Oracle(dense, error_rate, seed)), engine, sampler, 30, seed)
        assert tokens == dense, name
        for (_, logprobs), (_, theirs) in zip(verified(events), verified(expected), strict=True):
            assert [token for token, _ in logprobs] == [token for token, _ in theirs], name
            assert np.allclose([p for _, p in logprobs], [p for _, p in theirs]), name
            assert len(logprobs) == (0 if top_logprobs is None else 1 + top_logprobs)


@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("kv", ["complete", "propagate"])
def test_lossy_exits_keep_to_a_grammar_and_have_logprobs(drafts: bool, temperature: float, kv: Any) -> None:
    def fresh() -> tuple[FakeEngine, FakeSampler]:
        engine = FakeEngine(4, early_agreement=1.0, score_range=(0.5, 1.0))
        return engine, FakeSampler(temperature, 1.1, forbidden=3, top_logprobs=2)

    _, _, dense = answer(Dense(), *fresh(), 60, 1)
    engine, sampler = fresh()
    rules = ExitRules(threshold=0.3, arm_all=True, kv=kv)
    chain = ChainDrafter([Oracle(dense, 0.0, 1)], CostModel(FREE)) if drafts else None
    stats, events, tokens = answer(
        build_policy("specee", CALIBRATION, rules, engine.draft, chain), engine, sampler, 60, 1
    )
    assert stats.exits > 5
    assert all((a + b) % 3 for a, b in zip([0, *tokens], tokens, strict=False))
    assert all(e.logprobs[0][0] == e.token and len(e.logprobs) == 3 for e in events)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_acceptance_rules_keep_to_a_grammar(rule: Any) -> None:
    for seed in range(20):
        sampler = FakeSampler(1.0, 1.1, forbidden=2)
        drafter = ChainDrafter([SuffixGuesser()], CostModel(FREE))
        _, _, tokens = answer(Chain(drafter, 7, rule), FakeEngine(seed, n_vocab=8), sampler, 60, seed)
        assert all((a + b) % 2 for a, b in zip([0, *tokens], tokens, strict=False))
