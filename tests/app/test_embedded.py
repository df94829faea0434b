"""The policies on the embedded model with the calibration that is shipped with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specee.app.engine.datastore import open_datastore
from specee.app.engine.decode import decode
from specee.app.engine.loading import open_backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message
from specee.app.engine.step_times import measure_steps
from specee.app.options import PLAIN_GREEDY, LoadOptions, PolicyChoice, Sampling
from specee.models import embedded
from specee.predictors.acceptance import RULES
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.build_policy import build_chain, make_chain_drafter
from specee.predictors.decoding.policy import Policy
from specee.predictors.types import TokenState

PROMPTS = (
    "Name three rivers and say where each one ends.",
    "Explain in two sentences why bread rises.",
    "Repeat this line three times: the cat sat on the mat.",
)
N_TOKENS = 48


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if embedded.path() is None or embedded.calibration() is None:
        pytest.skip("built without the embedded model or its calibration")
    data: Path = tmp_path_factory.mktemp("data")
    backend = open_backend(LoadOptions(n_ctx=1024, data_dir=str(data)), lambda what, share: None)
    yield backend
    backend.close()


def run(
    backend: Any, wanted: PolicyChoice | Policy, text: str, sampling: Sampling = PLAIN_GREEDY
) -> tuple[list[int], Any]:
    prompt = make_prompt(backend, (Message("user", text),)).tokens
    engine = backend.engine
    policy = backend.policy(wanted) if isinstance(wanted, PolicyChoice) else wanted
    engine.roll_back(0)
    engine.prefill(prompt)
    tokens: list[int] = []
    state, events = decode(backend, policy, prompt, sampling, 1, N_TOKENS)
    for event in events:
        if event.state is TokenState.ROLLED_BACK:
            del tokens[event.index :]
        elif event.index == len(tokens):
            tokens.append(event.token)
    assert engine.n_in_flight == 0
    assert engine.tokens[len(prompt) :] == tokens[:-1], "every row but the last token's is committed"
    return tokens, state.stats


@pytest.mark.parametrize("rule", ["predictor", "margin"])
def test_exact_generates_the_tokens_of_dense(backend: Any, rule: Any) -> None:
    exits = 0
    for text in PROMPTS:
        expected, _ = run(backend, PolicyChoice("dense"), text)
        for sampling in (PLAIN_GREEDY, Sampling(temperature=0.0, repeat_penalty=1.2)):
            expected, _ = run(backend, PolicyChoice("dense"), text, sampling)
            tokens, stats = run(backend, PolicyChoice("exact", rule=rule), text, sampling)
            assert tokens == expected
            exits += stats.exits
    assert exits > 10


def test_chains_generate_the_tokens_of_dense(backend: Any) -> None:
    """Greedy, with penalties, and sampled with the same seed."""
    accepted = 0
    for text in PROMPTS:
        for sampling in (PLAIN_GREEDY, Sampling(temperature=0.0, repeat_penalty=1.2), Sampling(temperature=0.7)):
            expected, _ = run(backend, PolicyChoice("dense"), text, sampling)
            free = CostModel({1: 1.0, 8: 1.01})  # rows cost nothing: it drafts a lot
            chain = build_chain(make_chain_drafter(free, backend.datastores))
            tokens, stats = run(backend, chain, text, sampling)
            assert tokens == expected
            assert stats.rows == stats.steps + stats.tested
            accepted += stats.accepted
    assert accepted > 10


SAMPLINGS = (PLAIN_GREEDY, Sampling(temperature=0.0, repeat_penalty=1.2), Sampling(temperature=0.7))
FREE = {1: 1.0, 8: 1.01}  # rows cost nothing: many are drafted
LOSSLESS = [
    PolicyChoice("chain", early_rejection=True),
    PolicyChoice("chain", draft_length=3),
    PolicyChoice("tree"),
    PolicyChoice("exact", threshold=0.2, draft_length=3),
    PolicyChoice("pipelined"),
]


@pytest.mark.parametrize("choice", LOSSLESS, ids=lambda choice: f"{choice.label}-{choice.draft_length}")
def test_lossless_policies_generate_the_tokens_of_dense(backend: Any, choice: PolicyChoice) -> None:
    accepted = 0
    for text in PROMPTS:
        for sampling in SAMPLINGS:
            expected, _ = run(backend, PolicyChoice("dense"), text, sampling)
            tokens, stats = run(backend, backend.policy(choice, CostModel(FREE)), text, sampling)
            assert tokens == expected
            accepted += stats.accepted
    assert accepted > 10


class Row:
    """The distribution of a context, as a row of logits and a sampler."""

    is_greedy = False

    def __init__(self, backend: Any, text: str) -> None:
        backend.engine.prefill(make_prompt(backend, (Message("user", text),)).tokens)
        self.tokens, self.probs = backend.engine.distribution(0, backend.sampler(Sampling(top_k=0, top_p=1.0)))

    def distribution(self, i: int, sampler: Any) -> Any:
        return self.tokens, self.probs


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.is_lossless], ids=lambda rule: rule.name)
@pytest.mark.parametrize("text", [*PROMPTS, "Name a colour.", "Tell me a joke about cats."])
def test_acceptance_rules_draw_from_the_models_distribution(backend: Any, rule: Any, text: str) -> None:
    """20,000 tokens for each of several drafts: chi-square."""
    row, n = Row(backend, text), 20_000
    for draft in [None, *row.tokens[:3:2].tolist()]:
        rng = np.random.default_rng(3)
        seen = Counter(rule.next(row, 0, row, rng, draft) for _ in range(n))
        expected = {t: n * p for t, p in zip(row.tokens.tolist(), row.probs.tolist(), strict=True) if n * p >= 5}
        chi2 = sum((seen[t] - e) ** 2 / e for t, e in expected.items())
        assert chi2 < len(expected) + 4 * (2 * len(expected)) ** 0.5


def test_specee_with_drafts_exits(backend: Any) -> None:
    policy = backend.policy(PolicyChoice("specee", threshold=0.2, draft_length=3), CostModel(FREE))
    stats = [run(backend, policy, text, sampling)[1] for text in PROMPTS for sampling in SAMPLINGS]
    assert sum(s.exits for s in stats) > 0


def test_steps_are_timed_and_leave_the_cache_as_it_is(backend: Any) -> None:
    run(backend, PolicyChoice("dense"), PROMPTS[0])
    before = list(backend.engine.tokens)
    steps = measure_steps(backend.engine)
    assert steps.refusal is None
    assert list(steps.seconds) == [1, 2, 3, 4, 6, 8] and min(steps.seconds.values()) > 0
    assert backend.engine.tokens == before and backend.engine.n_in_flight == 0


def test_auto_drafts_at_first_use_and_remembers_what_it_brought(backend: Any, tmp_path: Path) -> None:
    chooser = PolicyChooser(Measurements(tmp_path / "measured.json"))
    decision = chooser.decide(backend, PolicyChoice("auto"))
    assert decision.choice.name == "chain" and decision.dense_rate is not None
    policy = chooser.build_policy(backend, decision.choice)
    for text in PROMPTS:
        expected, _ = run(backend, PolicyChoice("dense"), text)
        tokens, stats = run(backend, policy, text)
        assert tokens == expected and stats.tokens == len(tokens)
        chooser.learn(backend, stats)
    again = PolicyChooser(Measurements(tmp_path / "measured.json")).decide(backend, PolicyChoice("auto"))
    assert "x of dense so far" in again.reason


def test_the_datastore_is_built_once(backend: Any, tmp_path: Path) -> None:
    made: list[str] = []

    def tokenize(text: str) -> list[int]:
        made.append(text)
        return backend.model.tokenize(text, special=False, bos=False)  # type: ignore[no-any-return]

    first = open_datastore(tokenize, "0" * 64, tmp_path)
    n = len(made)
    assert n > 100 and len(first) > 10_000
    again = open_datastore(tokenize, "0" * 64, tmp_path)
    assert len(made) == n and len(again) == len(first)
    (file,) = tmp_path.glob("datastores/*")
    file.write_bytes(file.read_bytes()[:1000])
    assert len(open_datastore(tokenize, "0" * 64, tmp_path)) == len(first), "a damaged file is made again"


@pytest.mark.parametrize("kv", ["complete", "propagate"])
def test_specee_exits_early(backend: Any, kv: Any) -> None:
    for threshold in (None, 0.5):
        choice = PolicyChoice("specee", kv=kv, threshold=threshold)
        stats = [run(backend, choice, text)[1] for text in PROMPTS]
        assert sum(s.exits for s in stats) > 10
        assert all(s.exit_layers < backend.engine.n_layer * s.tokens for s in stats)


def test_sampling_is_repeatable_and_exits_keep_to_the_cut(backend: Any) -> None:
    """With top-k 1 every distribution is one token: sampling in `exact` must then be greedy dense decoding."""
    one = Sampling(temperature=0.8, top_k=1, top_p=1.0, min_p=0.0, repeat_penalty=1.0)
    some = Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.02, repeat_penalty=1.1)
    for text in PROMPTS:
        dense, _ = run(backend, PolicyChoice("dense"), text)
        assert run(backend, PolicyChoice("exact"), text, one)[0] == dense
        assert run(backend, PolicyChoice("exact"), text, some)[0] == run(backend, PolicyChoice("exact"), text, some)[0]
