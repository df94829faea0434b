"""The policies on the embedded model with the calibration that is shipped with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoded import N_TOKENS, run

from specee.app.engine.answering import Answerer
from specee.app.engine.datastore import open_datastore
from specee.app.engine.decode import begin
from specee.app.engine.loading import open_backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import ChatEvent, Done, Failed, Generate, Message, TokenEvents
from specee.app.engine.step_times import measure_steps
from specee.app.options import PLAIN_GREEDY, ChatOptions, LoadOptions, PolicyChoice, Sampling
from specee.models import embedded
from specee.predictors.acceptance import RULES
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding import driver
from specee.predictors.decoding.build_policy import build_chain, make_chain_drafter
from specee.predictors.types import TokenState

PROMPTS = (
    "Name three rivers and say where each one ends.",
    "Explain in two sentences why bread rises.",
    "Repeat this line three times: the cat sat on the mat.",
)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if embedded.path() is None or embedded.calibration() is None:
        pytest.skip("built without the embedded model or its calibration")
    data: Path = tmp_path_factory.mktemp("data")
    backend = open_backend(LoadOptions(n_ctx=1024, data_dir=str(data)), lambda what, share: None)
    yield backend
    backend.close()


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


def test_policies_generate_the_tokens_of_dense_with_keys_and_values_in_q8_0(tmp_path: Path) -> None:
    if embedded.path() is None or embedded.calibration() is None:
        pytest.skip("built without the embedded model or its calibration")
    load = LoadOptions(n_ctx=512, data_dir=str(tmp_path), kv_type="q8_0")
    with closing(open_backend(load, lambda what, share: None)) as backend:
        assert backend.info.kv_type == "q8_0" and "q8_0" in Measurements().key(backend)
        exits = accepted = 0
        for sampling in (PLAIN_GREEDY, Sampling(temperature=0.7)):
            expected, _ = run(backend, PolicyChoice("dense"), PROMPTS[0], sampling)
            chain = build_chain(make_chain_drafter(CostModel(FREE), backend.datastores))
            tokens, stats = run(backend, chain, PROMPTS[0], sampling)
            assert tokens == expected
            accepted += stats.accepted
        expected, _ = run(backend, PolicyChoice("dense"), PROMPTS[0])
        tokens, stats = run(backend, PolicyChoice("exact"), PROMPTS[0])
        assert tokens == expected
        exits += stats.exits
        assert exits and accepted


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
    (tmp_path / "file").touch()
    assert len(open_datastore(tokenize, "0" * 64, tmp_path / "file")) == len(first), "where nothing can be written, too"


@pytest.mark.parametrize("kv", ["complete", "propagate"])
def test_specee_exits_early(backend: Any, kv: Any) -> None:
    for threshold in (None, 0.5):
        choice = PolicyChoice("specee", kv=kv, threshold=threshold)
        stats = [run(backend, choice, text)[1] for text in PROMPTS]
        assert sum(s.exits for s in stats) >= 10
        assert all(s.exit_layers < backend.engine.n_layer * s.tokens for s in stats)


def test_sampling_is_repeatable_and_exits_keep_to_the_cut(backend: Any) -> None:
    """With top-k 1 every distribution is one token: sampling in `exact` must then be greedy dense decoding."""
    one = Sampling(temperature=0.8, top_k=1, top_p=1.0, min_p=0.0, repeat_penalty=1.0)
    some = Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.02, repeat_penalty=1.1)
    for text in PROMPTS:
        dense, _ = run(backend, PolicyChoice("dense"), text)
        assert run(backend, PolicyChoice("exact"), text, one)[0] == dense
        assert run(backend, PolicyChoice("exact"), text, some)[0] == run(backend, PolicyChoice("exact"), text, some)[0]


JSON = 'root ::= "{" pair ("," " "? pair)* "}"\npair ::= "\\"" [a-z]+ "\\":" " "? ([0-9]+ | "\\"" [a-zA-Z ]* "\\"")\n'
SHAPED = (
    (Sampling(temperature=0.0), JSON),
    (
        Sampling(temperature=0.8, presence_penalty=0.5, frequency_penalty=0.3, logit_bias=((28, 2.0), (30, -100.0))),
        None,
    ),
    (Sampling(temperature=0.8, repeat_penalty=1.0, logit_bias=((18, 5.0),)), JSON),
)
POLICIES = [PolicyChoice("chain"), *LOSSLESS]


@pytest.mark.parametrize("choice", POLICIES, ids=lambda choice: f"{choice.label}-{choice.draft_length}")
def test_grammars_biases_and_penalties_leave_drafts_and_exits_exact(backend: Any, choice: PolicyChoice) -> None:
    """The tokens of dense, and its logprobs, which are those of the model's own distribution."""
    accepted = 0
    for sampling, grammar in SHAPED:
        found: list[list[tuple[int, Any]]] = []
        for wanted in (PolicyChoice("dense"), choice):
            prompt = make_prompt(backend, (Message("user", "List three animals and their legs as JSON."),)).tokens
            backend.engine.roll_back(0)
            backend.engine.prefill(prompt)
            policy = backend.policy(wanted, CostModel(FREE) if wanted.drafts else None)
            with closing(backend.sampler(sampling, grammar, 2)) as sampler:
                state = begin(backend, prompt, sampler, 1, N_TOKENS)
                events = list(driver.run(policy, backend.engine, state))
            found.append([(e.token, e.logprobs) for e in events if e.state is TokenState.VERIFIED])
            accepted += state.stats.accepted
        assert found[0] == found[1]
        text = b"".join(backend.piece(token) for token, _ in found[0]).decode()
        assert grammar is None or text.startswith('{"')
        assert all(len(logprobs) == 3 and logprobs[0][0] == token for token, logprobs in found[0])
        assert grammar is not None or all(token != 30 for token, _ in found[0])
    assert accepted > 5


def answer(backend: Any, options: ChatOptions, text: str, **more: Any) -> tuple[str, list[ChatEvent], Any]:
    sent: list[Any] = []
    answerer = Answerer(backend, Measurements())
    answerer.add(Generate(1, (Message("user", text),), options, **more), sent.append)
    while answerer.busy:
        answerer.turn()
    last = sent[-1].message
    tokens = [e for m in sent if isinstance(m.message, TokenEvents) for e in m.message.events if e.state == "verified"]
    return "".join(e.text for e in tokens), tokens, last


@pytest.mark.parametrize("policy", ["dense", "auto", "tree", "exact"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_keep_to_a_schema(backend: Any, policy: str, temperature: float) -> None:
    schema = {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "grün"]},
            "size": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 3},
        },
        "required": ["colour", "size", "tags"],
        "additionalProperties": False,
    }
    sampling = Sampling(temperature=temperature, seed=3)
    options = ChatOptions(PolicyChoice(policy), sampling, 200, json_schema=json.dumps(schema))
    text, _, done = answer(backend, options, "Describe a ball as JSON.")
    ball = json.loads(text)
    assert list(ball) == ["colour", "size", "tags"] and ball["colour"] in ("red", "grün")
    assert type(ball["size"]) is int and 1 <= len(ball["tags"]) <= 3 and all(len(tag) <= 8 for tag in ball["tags"])
    assert done.stats.stop_reason == "stop"


def test_logprobs_travel_with_the_bytes_of_their_tokens(backend: Any) -> None:
    options = ChatOptions(PolicyChoice("auto"), PLAIN_GREEDY, 24, top_logprobs=4)
    text, events, _ = answer(backend, options, "Write the word naïve.")
    counted = [e for e in events if e.logprob is not None]
    assert [e.logprob.token for e in counted if e.logprob] == [e.token for e in counted]
    assert b"".join(e.logprob.piece for e in counted if e.logprob and not e.stop).decode("utf-8", "replace") == text
    for event in counted:
        assert event.logprob == event.top_logprobs[0] and len(event.top_logprobs) == 4, "greedy"
        assert sum(np.exp(each.logprob) for each in event.top_logprobs) <= 1.0
    plain, events, _ = answer(backend, replace(options, top_logprobs=None), "Write the word naïve.")
    assert plain == text and all(e.logprob is None and not e.top_logprobs for e in events)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (ChatOptions(grammar="root ::= nonsense"), "bad grammar"),
        (ChatOptions(json_schema='{"minimum": 1}'), "bad JSON schema"),
        (ChatOptions(sampling=Sampling(logit_bias=((10**6, 1.0),))), "bad logit_bias"),
        (ChatOptions(json_schema='{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}'), "bad JSON schema"),
        (ChatOptions(grammar="root ::= <[49152]>"), "refused"),
    ],
)
def test_what_cannot_be_kept_to_is_one_failure(backend: Any, options: ChatOptions, why: str) -> None:
    _, _, failed = answer(backend, options, "Hi")
    assert isinstance(failed, Failed) and why in f"{failed.title}: {failed.message}" and not failed.fatal
    assert isinstance(answer(backend, ChatOptions(max_tokens=4), "Hi")[2], Done)
