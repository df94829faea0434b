"""Policies against the fake engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import FakeEngine, FakeSampler, make_artifact, replay
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors import decoding
from specee.predictors.errors import ArtifactError, RulesError
from specee.predictors.exits.rules import ExitRules
from specee.predictors.types import State

PROMPT = [1, 2, 3, 1, 2]
ARTIFACT = make_artifact()


def answer(name: str, engine: FakeEngine, sampler: FakeSampler, rules: ExitRules, n: int = 40, seed: int = 0) -> Any:
    engine.prefill(PROMPT)
    sampler.rewind(PROMPT)
    policy = decoding.build(name, ARTIFACT, rules)
    events = list(policy.generate(engine, sampler, np.random.default_rng(seed), n, PROMPT))
    words = replay(events)
    assert all(d == engine.n_layer for d in engine.depths)
    assert engine.tokens == (PROMPT + words)[: engine.length]
    assert engine.length >= len(PROMPT) + len(words) - 1
    return policy, events, words


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
    policy, events, exact = answer("exact", engine, sampler, rules, n)
    assert exact == dense
    assert sampler.said == PROMPT + exact
    stats = policy.stats
    assert stats.tokens == len(exact)
    assert stats.tested - stats.accepted == sum(e.state is State.ROLLED_BACK for e in events)
    assert stats.exits == stats.accepted
    assert stats.passes == sum(call[0] == "advance" and call[3] == engine.n_layer for call in engine.calls)
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
        engine._rng = lambda pos, depth, what, e=engine: FakeEngine._rng(_unmarked(e), pos, depth, what)  # type: ignore
        policy, _, words = answer(name, engine, FakeSampler(temperature, 1.1), rules)
        texts.append(words)
    assert texts[0] == texts[1]
    assert policy.stats.exits > 10
    assert policy.stats.mean_exit_layer < engine.n_layer


def _unmarked(engine: FakeEngine) -> FakeEngine:
    """The same engine as if propagation were exact."""
    return FakeEngine(engine.seed, tokens=engine.tokens, marks=[0] * engine.length)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), kv=st.sampled_from(["propagate", "complete"]), max_pending=st.integers(1, 6))
def test_specee_statistics_and_depths(seed: int, kv: Any, max_pending: int) -> None:
    engine = FakeEngine(seed, early_agreement=0.8)
    rules = ExitRules(kv=kv, max_pending=max_pending, threshold=0.4)
    policy, events, words = answer("specee", engine, FakeSampler(), rules)
    stats = policy.stats
    assert len(words) == stats.tokens == 40 and stats.rows == 39
    assert stats.exit_layers == sum(e.exit_layer for e in events)
    assert stats.exits == sum(e.exit_layer < engine.n_layer for e in events) == stats.accepted == stats.taken
    assert stats.probes == sum(len(e.probes) for e in events)
    assert stats.checks == sum(p.score > 0.4 for e in events for p in e.probes)
    assert all(e.token in e.candidates for e in events if e.exit_layer < engine.n_layer)
    if kv == "propagate":  # settled rows come along with others, or in batches of their own
        assert stats.passes == stats.rows - stats.exits
    assert stats.rows - stats.exits <= stats.passes <= stats.rows
    assert any(engine.marks) == (kv == "propagate" and stats.exits > 0)


def test_full_head_check_goes_on() -> None:
    engine = FakeEngine(1, early_agreement=0.0, score_range=(0.9, 1.0))
    policy, events, _ = answer("specee", engine, FakeSampler(), ExitRules(arm_all=True, kv="propagate"))
    assert policy.stats.checks_failed > 0
    assert all(e.token in e.candidates for e in events if e.exit_layer < engine.n_layer)


@pytest.mark.parametrize("rule", ["predictor", "margin"])
def test_no_exit_says_the_last_word_again(rule: Any) -> None:
    # tokens 0 to 11 say six words in two spellings each, the rest is punctuation
    spelled = {token: "abcdef"[token // 2] for token in range(12)}

    def doubled(no_echo: bool) -> int:
        engine = FakeEngine(seed=3, score_range=(0.9, 1.0), words=spelled)
        rules = ExitRules(threshold=0.5, full_head_check=False, arm_all=True, rule=rule, no_echo=no_echo)
        _, events, _ = answer("specee", engine, FakeSampler(), rules, n=200)
        said, count = "", 0
        for event in events:
            count += event.exit_layer < engine.n_layer and said != "" and spelled.get(event.token) == said
            said = spelled.get(event.token, said)
        return count

    assert doubled(no_echo=False) > 0
    assert doubled(no_echo=True) == 0


def test_no_exit_is_dense() -> None:
    texts = [answer(name, FakeEngine(5), FakeSampler(), ExitRules(threshold=1.0))[2] for name in decoding.NAMES]
    assert texts[0] == texts[1] == texts[2]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 1000),
    name=st.sampled_from(["specee", "exact"]),
    kv=st.sampled_from(["propagate", "complete"]),
    after=st.integers(1, 25),
)
def test_closing_leaves_nothing_pending(seed: int, name: str, kv: Any, after: int) -> None:
    engine = FakeEngine(seed, early_agreement=0.9, score_range=(0.5, 1.0))
    engine.prefill(PROMPT)
    rules = ExitRules(kv=kv, max_pending=6, threshold=0.5)
    events = decoding.build(name, ARTIFACT, rules).generate(
        engine, FakeSampler(said=list(PROMPT)), np.random.default_rng(0), 50, PROMPT
    )
    words: list[int] = []
    for _ in range(after):
        event = next(events)
        del words[event.index :]
        if event.state is not State.ROLLED_BACK:
            words.append(event.token)
    events.close()  # type: ignore[attr-defined]
    assert all(d == engine.n_layer for d in engine.depths)
    text = PROMPT + words
    n = min(len(text), engine.length)
    assert engine.tokens[:n] == text[:n]


@pytest.mark.parametrize("fail_at", [3, 5, 8, 13])
@pytest.mark.parametrize("name", ["specee", "exact"])
def test_failure_leaves_nothing_pending(name: str, fail_at: int) -> None:
    engine = FakeEngine(7, early_agreement=0.9, score_range=(0.6, 1.0), fail_at=fail_at)
    engine.prefill(PROMPT)
    policy = decoding.build(name, ARTIFACT, ExitRules(kv="complete", max_pending=6))
    with pytest.raises(RuntimeError, match="scripted"):
        list(policy.generate(engine, FakeSampler(), np.random.default_rng(0), 50, PROMPT))
    assert all(d == engine.n_layer for d in engine.depths)


@pytest.mark.parametrize("rule", ["predictor", "margin"])
def test_exact_sampling_has_the_dense_distribution(rule: Any) -> None:
    """First three words of many answers: chi-square against dense sampling's exact probabilities."""
    engine = FakeEngine(11, n_vocab=6, early_agreement=0.3, score_range=(0.4, 1.0))
    sampler = FakeSampler(temperature=1.5, repeat_penalty=1.2, top_k=3)
    expected: dict[tuple[int, ...], float] = {}

    def expand(words: list[int], p: float) -> None:
        if len(words) == 3:
            expected[tuple(words)] = p
            return
        engine.prefill(PROMPT + words)
        sampler.rewind(PROMPT + words)
        d = engine.distribution(0, sampler)
        for token, q in zip(d.tokens.tolist(), d.probs.tolist(), strict=True):
            expand([*words, token], p * q)

    expand([], 1.0)
    n = 3000
    rng = np.random.default_rng(0)
    policy = decoding.build("exact", ARTIFACT, ExitRules(rule=rule, threshold=0.5, max_pending=3, arm_all=True))
    seen: dict[tuple[int, ...], int] = {}
    rolled_back = 0
    for _ in range(n):
        engine.prefill(PROMPT)
        sampler.rewind(PROMPT)
        words = tuple(replay(policy.generate(engine, sampler, rng, 3, PROMPT)))
        seen[words] = seen.get(words, 0) + 1
        rolled_back += policy.stats.rolled_back
    assert set(seen) <= set(expected)
    assert rolled_back > 100
    chi2 = sum((seen.get(w, 0) - n * p) ** 2 / (n * p) for w, p in expected.items())
    df = len(expected) - 1
    assert chi2 < df + 4 * (2 * df) ** 0.5


def test_build_says_what_is_wrong() -> None:
    with pytest.raises(ArtifactError, match="calibrate"):
        decoding.build("exact", None, ExitRules())
    with pytest.raises(RulesError, match="dense, specee, exact"):
        decoding.build("exakt", ARTIFACT, ExitRules())
    with pytest.raises(ArtifactError, match="k = 4"):
        decoding.build("exact", ARTIFACT, ExitRules(k=8))
    assert decoding.build("dense", None, ExitRules()).name == "dense"


class Rota:
    """Turns of random length; remembers who had how many tokens."""

    def __init__(self, lengths: list[int], number: int) -> None:
        self.lengths, self.number = lengths, number
        self.log: list[tuple[int, int]] = []

    def next_turn(self) -> tuple[int, int | None]:
        at = len(self.log)
        return at % self.number, self.lengths[at] if at < len(self.lengths) else None

    def took(self, policy: int, tokens: int, seconds: float) -> None:
        assert seconds >= 0
        self.log.append((policy, tokens))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 9), max_size=6),
    stops=st.sampled_from([(), (5, 9, 13)]),
    penalty=st.sampled_from([1.0, 1.3]),
    n=st.integers(1, 40),
    n_ctx=st.sampled_from([12, 256]),
)
def test_policies_in_turns_say_what_dense_says(
    seed: int, lengths: list[int], stops: tuple[int, ...], penalty: float, n: int, n_ctx: int
) -> None:
    def fake() -> FakeEngine:
        return FakeEngine(seed=seed, stop_tokens=stops, n_ctx=n_ctx)

    _, _, dense = answer("dense", fake(), FakeSampler(repeat_penalty=penalty), ExitRules(), n)
    engine, sampler, rota = fake(), FakeSampler(repeat_penalty=penalty), Rota(lengths, 3)
    engine.prefill(PROMPT)
    sampler.rewind(PROMPT)
    rules = ExitRules(max_pending=3)
    names = ("dense", "exact", "exact")
    in_turns = decoding.InTurns([decoding.build(name, ARTIFACT, rules) for name in names], rota)
    words = replay(list(in_turns.generate(engine, sampler, np.random.default_rng(0), n, PROMPT)))
    assert words == dense
    assert sum(tokens for _, tokens in rota.log) == in_turns.stats.tokens == len(words)
    assert all(tokens <= length for (_, tokens), length in zip(rota.log, lengths, strict=False))
    assert all(d == engine.n_layer for d in engine.depths)
