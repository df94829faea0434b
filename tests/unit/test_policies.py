"""Policies against the fake engine."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from fakes import FakeEngine, FakeSampler, make_calibration, replay
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.cost_model import CostModel
from specee.predictors.decoding import driver
from specee.predictors.decoding.build_policy import (
    POLICIES,
    build_pipelined,
    build_policy,
    make_chain_drafter,
    make_early_rejection,
)
from specee.predictors.decoding.merged_exits import MergedExits
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.state import Decoding, begin_decoding
from specee.predictors.errors import CalibrationFileError, RulesError
from specee.predictors.exits.rules import ExitRules
from specee.predictors.types import TokenState

PROMPT = [1, 2, 3, 1, 2]
CALIBRATION = make_calibration()


def run(policy: Policy, engine: FakeEngine, sampler: FakeSampler, n: int, rng: Any = 0) -> tuple[Decoding, Any]:
    state = begin_decoding(engine, PROMPT, sampler, np.random.default_rng(rng) if isinstance(rng, int) else rng, n)
    return state, driver.run(policy, engine, state)


def answer(name: str, engine: FakeEngine, sampler: FakeSampler, rules: ExitRules, n: int = 40, seed: int = 0) -> Any:
    engine.prefill(PROMPT)
    state, steps = run(build_policy(name, CALIBRATION, rules, engine.draft), engine, sampler, n, seed)
    events = list(steps)
    tokens = replay(events)
    assert not engine.in_flight
    assert engine.tokens == (PROMPT + tokens)[:-1], "all tokens but the last have a committed row"
    assert state.tokens == tokens
    return state.stats, events, tokens


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    agreement=st.floats(0, 1),
    threshold=st.floats(0, 1),
    max_pending=st.integers(1, 7),
    penalty=st.sampled_from([1.0, 1.3]),
    stops=st.sampled_from([(), (5,), (5, 9, 13)]),
    rule=st.sampled_from(["predictor", "margin"]),
    check=st.booleans(),
    arm_all=st.booleans(),
    n=st.integers(1, 40),
    n_ctx=st.sampled_from([12, 256]),
)
def test_exact_is_dense(
    seed: int,
    agreement: float,
    threshold: float,
    max_pending: int,
    penalty: float,
    stops: tuple[int, ...],
    rule: Any,
    check: bool,
    arm_all: bool,
    n: int,
    n_ctx: int,
) -> None:
    def fresh() -> tuple[FakeEngine, FakeSampler]:
        engine = FakeEngine(seed, early_agreement=agreement, stop_tokens=stops, n_ctx=n_ctx)
        return engine, FakeSampler(repeat_penalty=penalty)

    rules = ExitRules(threshold=threshold, max_pending=max_pending, rule=rule, full_head_check=check, arm_all=arm_all)
    _, _, dense = answer("dense", *fresh(), rules, n)
    engine, sampler = fresh()
    stats, events, exact = answer("exact", engine, sampler, rules, n)
    assert exact == dense
    assert sampler.accepted[-16:] == (PROMPT + exact)[-16:] or not sampler.remembers
    assert stats.tokens == len(exact)
    assert stats.tested - stats.accepted == sum(e.state is TokenState.ROLLED_BACK for e in events)
    assert stats.exits == stats.accepted
    assert stats.steps == sum(call[0] == "advance" and call[2] == engine.n_layer for call in engine.calls)
    if n_ctx == 256 and exact:
        assert len(exact) == n or exact[-1] in stops


@pytest.mark.parametrize("kv", ["propagate", "complete"])
@pytest.mark.parametrize("rule", ["predictor", "margin"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_specee_is_dense_when_early_layers_always_agree(kv: Any, rule: Any, temperature: float) -> None:
    rules = ExitRules(kv=kv, rule=rule, threshold=0.3, full_head_check=False)
    texts = []
    for name in ("dense", "specee"):
        engine = FakeEngine(3, early_agreement=1.0)
        engine._rng = partial(_exact_propagation, engine)  # type: ignore[method-assign]
        stats, _, tokens = answer(name, engine, FakeSampler(temperature, 1.1), rules)
        texts.append(tokens)
    assert texts[0] == texts[1]
    assert stats.exits > 10
    assert stats.mean_exit_layer < engine.n_layer


def _exact_propagation(engine: FakeEngine, text: list[tuple[int, int]], depth: int, what: str) -> np.random.Generator:
    """The engine's random numbers as if propagated K and V were exact."""
    return FakeEngine._rng(engine, [(token, 0) for token, _ in text], depth, what)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), kv=st.sampled_from(["propagate", "complete"]), max_pending=st.integers(1, 6))
def test_specee_statistics_and_depths(seed: int, kv: Any, max_pending: int) -> None:
    engine = FakeEngine(seed, early_agreement=0.8)
    rules = ExitRules(kv=kv, max_pending=max_pending, threshold=0.4)
    stats, events, tokens = answer("specee", engine, FakeSampler(), rules)
    assert len(tokens) == stats.tokens == 40 and stats.rows == 39
    assert stats.exit_layers == sum(e.exit_layer for e in events)
    assert stats.exits == sum(e.exit_layer < engine.n_layer for e in events) == stats.accepted == stats.all_exits
    assert stats.probes == sum(len(e.probes) for e in events)
    assert stats.checks == sum(p.score > 0.4 for e in events for p in e.probes)
    assert all(e.token in e.candidates for e in events if e.exit_layer < engine.n_layer)
    if kv == "propagate":  # completed rows come along with others, or in batches of their own
        assert stats.steps == stats.rows - stats.exits
    assert stats.rows - stats.exits <= stats.steps <= stats.rows
    assert any(engine.marks) == (kv == "propagate" and stats.exits > 0)


def test_full_head_check_goes_on() -> None:
    engine = FakeEngine(1, early_agreement=0.0, score_range=(0.9, 1.0))
    stats, events, _ = answer("specee", engine, FakeSampler(), ExitRules(arm_all=True, kv="propagate"))
    assert stats.checks_failed > 0
    assert all(e.token in e.candidates for e in events if e.exit_layer < engine.n_layer)


@pytest.mark.parametrize("rule", ["predictor", "margin"])
def test_no_exit_repeats_the_last_token(rule: Any) -> None:
    # tokens 0 to 11 read as six letters in two spellings each, the rest is punctuation
    spelled = {token: "abcdef"[token // 2] for token in range(12)}

    def doubled(no_repeat: bool) -> int:
        engine = FakeEngine(seed=3, score_range=(0.9, 1.0), spelled=spelled)
        rules = ExitRules(threshold=0.5, full_head_check=False, arm_all=True, rule=rule, no_repeat=no_repeat)
        _, events, _ = answer("specee", engine, FakeSampler(), rules, n=200)
        last, count = "", 0
        for event in events:
            count += event.exit_layer < engine.n_layer and last != "" and spelled.get(event.token) == last
            last = spelled.get(event.token, last)
        return count

    assert doubled(no_repeat=False) > 0
    assert doubled(no_repeat=True) == 0


def test_no_exit_is_dense() -> None:
    texts = [answer(name, FakeEngine(5), FakeSampler(), ExitRules(threshold=1.0))[2] for name in POLICIES]
    assert all(text == texts[0] for text in texts)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    name=st.sampled_from(POLICIES),
    kv=st.sampled_from(["propagate", "complete"]),
    after=st.integers(1, 25),
)
def test_closing_drops_what_is_not_committed(seed: int, name: str, kv: Any, after: int) -> None:
    engine = FakeEngine(seed, early_agreement=0.9, score_range=(0.5, 1.0))
    engine.prefill(PROMPT)
    rules = ExitRules(kv=kv, max_pending=6, threshold=0.5)
    _, events = run(build_policy(name, CALIBRATION, rules, engine.draft), engine, FakeSampler(), 50)
    tokens: list[int] = []
    for _ in range(after):
        event = next(events)
        del tokens[event.index :]
        if event.state is not TokenState.ROLLED_BACK:
            tokens.append(event.token)
    events.close()
    assert not engine.in_flight
    assert engine.tokens == (PROMPT + tokens)[: engine.length]


@pytest.mark.parametrize("fail_at", [3, 5, 8, 13])
@pytest.mark.parametrize("name", ["specee", "exact", "pipelined"])
def test_failure_drops_what_is_not_committed(name: str, fail_at: int) -> None:
    engine = FakeEngine(7, early_agreement=0.9, score_range=(0.6, 1.0), fail_at=fail_at)
    engine.prefill(PROMPT)
    policy = build_policy(name, CALIBRATION, ExitRules(kv="complete", max_pending=6), engine.draft)
    with pytest.raises(RuntimeError, match="scripted"):
        list(run(policy, engine, FakeSampler(), 50)[1])
    assert not engine.in_flight


@pytest.mark.parametrize("rule", ["predictor", "margin"])
def test_exact_sampling_has_the_dense_distribution(rule: Any) -> None:
    """First three tokens of many answers: chi-square against dense sampling's exact probabilities."""
    engine = FakeEngine(11, n_vocab=6, early_agreement=0.3, score_range=(0.4, 1.0))
    sampler = FakeSampler(temperature=1.5, repeat_penalty=1.2, top_k=3)
    expected: dict[tuple[int, ...], float] = {}

    def expand(tokens: list[int], p: float) -> None:
        if len(tokens) == 3:
            expected[tuple(tokens)] = p
            return
        engine.prefill(PROMPT + tokens)
        sampler.rewind(PROMPT + tokens)
        found, probs = engine.distribution(0, sampler)
        for token, q in zip(found.tolist(), probs.tolist(), strict=True):
            expand([*tokens, token], p * q)

    expand([], 1.0)
    n = 3000
    rng = np.random.default_rng(0)
    rules = ExitRules(rule=rule, threshold=0.5, max_pending=3, arm_all=True)
    policy = build_policy("exact", CALIBRATION, rules, engine.draft)
    seen: dict[tuple[int, ...], int] = {}
    rolled_back = 0
    for _ in range(n):
        engine.prefill(PROMPT)
        state, events = run(policy, engine, sampler, 3, rng)
        tokens = tuple(replay(events))
        seen[tokens] = seen.get(tokens, 0) + 1
        rolled_back += state.stats.rolled_back
    assert set(seen) <= set(expected)
    assert rolled_back > 100
    chi2 = sum((seen.get(w, 0) - n * p) ** 2 / (n * p) for w, p in expected.items())
    df = len(expected) - 1
    assert chi2 < df + 4 * (2 * df) ** 0.5


def test_build_says_what_is_wrong() -> None:
    draft = FakeEngine().draft
    with pytest.raises(CalibrationFileError, match="calibrate"):
        build_policy("exact", None, ExitRules(), draft)
    with pytest.raises(CalibrationFileError, match="pipelined needs one"):
        build_policy("pipelined", None, ExitRules(), draft)
    with pytest.raises(CalibrationFileError, match=r"where the first device ends \(5\)"):
        build_pipelined((5, 12), CALIBRATION)
    with pytest.raises(CalibrationFileError, match="early rejection needs one"):
        make_early_rejection(None)
    chain = make_chain_drafter(CostModel({1: 1.0}), {}, length=2)
    with pytest.raises(RulesError, match="the rule 'predictor'"):
        build_policy("exact", CALIBRATION, ExitRules(rule="margin"), draft, chain)
    assert isinstance(build_policy("specee", CALIBRATION, ExitRules(), draft, chain), MergedExits)
    assert make_early_rejection(CALIBRATION) is not None
    with pytest.raises(RulesError, match="dense, specee, exact, pipelined"):
        build_policy("exakt", CALIBRATION, ExitRules(), draft)
    with pytest.raises(CalibrationFileError, match="k = 4"):
        build_policy("exact", CALIBRATION, ExitRules(k=8), draft)
    assert build_policy("dense", None, ExitRules(), draft).name == "dense"
