"""Thoughts of the embedded model, whose template is changed to one that opens a thought."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import changed_gguf
from real_engine import NO_END, missing_model

from specee.app.chat.session import Session
from specee.app.engine import thinking
from specee.app.engine.answering import Answerer
from specee.app.engine.chat_template import ChatTemplate
from specee.app.engine.loading import open_backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.protocol import Done, Generate, Message, TokenEvents
from specee.app.options import PLAIN_GREEDY, ChatOptions, LoadOptions, PolicyChoice, Sampling
from specee.models import embedded

MISSING = missing_model()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"no real engine: {MISSING}")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
    "{% endif %}"
)
QUESTION = "Name three rivers and say where each one ends."
PROGRAM = (sys.executable, "-c", "from specee.app.cli.main import main; main()")
GREEDY = replace(PLAIN_GREEDY, logit_bias=tuple(NO_END.items()))
SEEDED = Sampling(temperature=0.7, seed=5, logit_bias=tuple(NO_END.items()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = embedded.path()
    assert source is not None
    values = {"tokenizer.chat_template": (changed_gguf.Type.STRING, TEMPLATE)}
    return changed_gguf.write(source, tmp_path_factory.mktemp("model") / "thinking.gguf", values)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answerer]:
    """With the calibration that belongs to the unchanged file."""
    backend = open_backend(LoadOptions(n_ctx=1024, data_dir=str(tmp_path_factory.mktemp("data"))), lambda *_: None)
    backend.template = ChatTemplate(TEMPLATE, {})
    backend.thinking = thinking.find(backend.template, lambda text: False)
    yield Answerer(backend, Measurements())
    backend.close()


def ask(answerer: Answerer, *messages: Message, goes_on: bool = False, **options: Any) -> tuple[str, str, Any]:
    """Thought, answer and figures."""
    sent: list[Any] = []
    chosen = {"policy": PolicyChoice("dense"), "sampling": PLAIN_GREEDY, "max_tokens": 80, **options}
    answerer.add(Generate(1, messages or (Message("user", QUESTION),), ChatOptions(**chosen), goes_on), sent.append)
    while answerer.busy:
        answerer.turn()
    received = [message.message for message in sent]
    assert isinstance(received[-1], Done), received[-1]
    events = [event for message in received if isinstance(message, TokenEvents) for event in message.events]
    final = [event for event in events if event.state == "verified"]
    thought = "".join(event.text for event in final if event.channel == "thought")
    return thought, "".join(event.said for event in final), received[-1].stats


@pytest.mark.parametrize(
    ("policy", "sampling"),
    [("chain", GREEDY), ("chain", SEEDED), ("chain:early", GREEDY), ("tree", SEEDED), ("exact", GREEDY)],
)
def test_every_policy_thinks_as_dense(answerer: Answerer, policy: str, sampling: Sampling) -> None:
    thought, answer, stats = ask(answerer, think_tokens=30, sampling=sampling, max_tokens=50)
    assert thought and answer and stats.thought_tokens == 30 and stats.thought_closed
    same = ask(answerer, think_tokens=30, sampling=sampling, max_tokens=50, policy=PolicyChoice.parse(policy))
    assert same[:2] == (thought, answer)
    assert (same[2].tokens, same[2].thought_tokens) == (stats.tokens, 30)


@pytest.mark.parametrize("n_given", [1, 5, 20, 39])
def test_an_answer_goes_on_behind_the_tokens_that_came(answerer: Answerer, n_given: int) -> None:
    """As when a worker is lost; thought and answer are those of an answer in one piece."""

    def events_of(given: tuple[int, ...]) -> tuple[list[Any], Any]:
        sent: list[Any] = []
        options = ChatOptions(PolicyChoice("chain"), SEEDED, 40)
        answerer.add(Generate(1, (Message("user", QUESTION),), options, given=given), sent.append)
        while answerer.busy:
            answerer.turn()
        found = [message.message for message in sent]
        events = [e for message in found if isinstance(message, TokenEvents) for e in message.events]
        return [(e.index, e.token, e.text, e.channel) for e in events if e.state == "verified"], found[-1].stats

    whole, stats = events_of(())
    tokens = {index: token for index, token, _, _ in whole}
    rest, same = events_of(tuple(tokens[i] for i in range(n_given)))
    assert rest == [event for event in whole if event[0] >= n_given]
    assert (same.tokens, same.thought_tokens) == (stats.tokens, stats.thought_tokens)
    assert same.reused <= same.prompt_tokens == stats.prompt_tokens


def test_drafts_are_counted_in_both_parts(answerer: Answerer) -> None:
    _, _, stats = ask(
        answerer,
        Message("user", "Say: " + "the cat sat on the mat, " * 8),
        think_tokens=40,
        policy=PolicyChoice("chain"),
    )
    counted = stats.policy_stats
    assert counted["tokens"] >= stats.tokens and 0 < counted["steps"] < stats.tokens


def test_it_can_be_told_not_to_think(answerer: Answerer) -> None:
    assert answerer.backend.thinking.kind == "on"
    thought, answer, stats = ask(answerer, think="off")
    assert thought == "" and answer and stats.thought_tokens == 0


def test_a_thought_that_is_cut_goes_on_as_if_it_had_not_been(answerer: Answerer) -> None:
    whole, _, _ = ask(answerer, max_tokens=40)
    begun, answer, stats = ask(answerer, max_tokens=16)
    assert stats.thought_cut and answer == "" and whole.startswith(begun)
    rest, _, stats = ask(
        answerer, Message("user", QUESTION), Message("assistant", "", thought=begun), goes_on=True, max_tokens=24
    )
    assert begun + rest == whole and stats.prompt_thought_tokens in (15, 16)


def test_the_schema_of_an_answer_behind_a_thought(answerer: Answerer) -> None:
    schema = {"type": "object", "properties": {"river": {"type": "string", "maxLength": 12}}, "required": ["river"]}
    for policy in ("dense", "chain"):
        thought, answer, _ = ask(
            answerer, think_tokens=20, json_schema=json.dumps(schema), policy=PolicyChoice(policy), max_tokens=120
        )
        assert thought and isinstance(json.loads(answer)["river"], str)


def test_later_prompts_have_no_thoughts(model: Path, tmp_path: Path) -> None:
    session = Session(LoadOptions(model=str(model), n_ctx=1024, data_dir=str(tmp_path)))
    options = ChatOptions(PolicyChoice("dense"), PLAIN_GREEDY, 60, think_tokens=20)
    try:
        prompts = []
        for question in (QUESTION, "And three lakes?"):
            done = [event for event in session.send(question, options) if isinstance(event, Done)][-1]
            prompts.append(done.stats)
        first, second = prompts
        answered = len(session.branch[1].tokens) - 20
        assert second.prompt_tokens < first.prompt_tokens + answered + 25 and session.branch[1].thought
        assert session.context_tokens == second.prompt_tokens + second.tokens - 20
    finally:
        session.close()
        session.store.close()


ANSWER = ("--max-tokens", "50", "--think-tokens", "20", "--temperature", "0", "--policy", "dense", "--no-history")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return {**plain, "SPECEE_DATA_DIR": str(tmp_path / "data"), "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}


def call(env: dict[str, str], model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, "--model", str(model), "-p", QUESTION, *arguments]
    return subprocess.run(command, env=env, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)


def test_scripts_get_the_answer_only(env: dict[str, str], model: Path) -> None:
    told = call(env, model, "--json", *ANSWER)
    found = json.loads(told.stdout)
    assert found["thought"] and found["text"] and found["thought_tokens"] == 20
    assert [token["channel"] for token in found["tokens"]][:21] == ["thought"] * 20 + ["answer"]
    assert "".join(token["text"] for token in found["tokens"]) == found["thought"] + found["text"]
    plain = call(env, model, *ANSWER)
    assert plain.stdout.rstrip("\n") == found["text"].rstrip("\n") and found["thought"][:20] not in plain.stderr
    assert "ended after 20 tokens" in plain.stderr
    lines = [json.loads(line) for line in call(env, model, "--jsonl", *ANSWER).stdout.splitlines()]
    of_thought = [line["text"] for line in lines if line["type"] == "token" and line["channel"] == "thought"]
    assert "".join(of_thought) == found["thought"] and lines[-1]["thought"] == found["thought"]
    cut = call(env, model, *ANSWER[4:], "--max-tokens", "10")
    assert cut.stdout == "" and "the thought was cut after 10 tokens: a larger --max-tokens" in cut.stderr


def test_a_terminal_shows_the_thought_dim(env: dict[str, str], model: Path) -> None:
    found = json.loads(call(env, model, "--json", *ANSWER).stdout)
    ours, theirs = pty.openpty()
    command = [*PROGRAM, "--model", str(model), "-p", QUESTION, *ANSWER]
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    drawn = b""
    try:
        while part := os.read(ours, 1 << 16):
            drawn += part
    except OSError:
        pass  # the other side is closed
    assert process.wait() == 0
    shown = drawn.decode().replace("\r\n", "\n")
    assert shown.startswith("\x1b[2m" + found["thought"].split("\n")[0])
    thought, _, answer = shown.partition("\x1b[0m")
    assert thought == "\x1b[2m" + found["thought"] and answer.strip() == found["text"].strip()
    assert answer.startswith("\n")


def test_what_cannot_be_told_is_said_once(env: dict[str, str]) -> None:
    done = subprocess.run(
        [*PROGRAM, "-p", "Hi", "--think", "on", "--max-tokens", "3", "--no-history"],
        env=env,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and done.stderr.count("does not think before it answers") == 1
