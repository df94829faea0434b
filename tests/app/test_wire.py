"""Messages between the two processes: each arrives as it was sent, and what is no message is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.app.bench.prompts import Asked, BenchPrompt
from specee.app.engine import wire
from specee.app.engine.protocol import (
    Alive,
    Bench,
    Calibrate,
    Cancel,
    ChatEvent,
    Close,
    Done,
    Failed,
    Generate,
    GuardTerminal,
    Load,
    Message,
    ModelInfo,
    ModelLoaded,
    OfRequest,
    Optimize,
    Progress,
    PromptProgress,
    ReportMachine,
    Started,
    Stats,
    TaskDone,
    TaskPart,
    TokenEvents,
)
from specee.app.engine.terminal_guard import SavedTerminal
from specee.app.engine.wire import WireError, encode, read_message
from specee.app.errors import AppError
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice, Sampling

STATS = Stats(10, 2, 5, 0.1, 0.2, 50.0, 29.5, 30, "chain", "why", "stop", 2**31, 12.5, {"drafts": {"suffix": [1]}})
EVENT = ChatEvent(0, "a\ufffd", 7, 24, "verified", 0.5, ((20, 0.25),), (7, 9), True, "suffix")


MESSAGES = [
    Load(LoadOptions(model="bad\udcff.gguf", n_ctx=512)),
    Generate(3, (Message("user", "ü \0 \U0001f600"), Message("assistant", "")), ChatOptions(), True),
    Cancel(3),
    Close(),
    GuardTerminal(SavedTerminal(5, (1, 2**31, 3), (b"\x03", 1, b"\xff"))),
    Calibrate(LoadOptions(), None, 0, "bad\udcff.npz"),
    Optimize(LoadOptions(), None, True),
    Bench(
        LoadOptions(),
        (BenchPrompt("1", "x"),),
        (PolicyChoice("chain", draft_length=3),),
        Asked(Sampling(), 8),
        None,
    ),
    ReportMachine(LoadOptions(data_dir="/x")),
    Alive(),
    ModelLoaded(ModelInfo("m", "/m\udcff.gguf", "llama", 30, 4096, 2)),
    Progress("loading", None),
    TaskPart({"n": float("inf"), "list": [None, True]}),
    TaskDone({}),
    Failed("bad", "worse", 3, True),
    *(OfRequest(4, part) for part in (PromptProgress(1, 2), Started("a", "b", 1, 2, 3), TokenEvents((EVENT,)))),
    *(OfRequest(5, part) for part in (Done(STATS), Failed("bad", "worse"))),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(getattr(message, "message", message)).__name__)
def test_messages_survive_the_pipe(message: object) -> None:
    stream = io.BytesIO(encode(message) + encode(Close()))
    assert read_message(stream) == message
    assert read_message(stream) == Close()
    with pytest.raises(EOFError):
        read_message(stream)
    for end in (1, 9, len(encode(message)) - 1):
        with pytest.raises(EOFError):
            read_message(io.BytesIO(encode(message)[:end]))


def test_numbers_of_numpy_become_pythons() -> None:
    result = {"a": np.float32(0.5), "b": [np.int64(3)], "c": np.bool_(True)}
    received = read_message(io.BytesIO(encode(TaskDone(result))))
    assert received == TaskDone({"a": 0.5, "b": [3], "c": True}) and type(received.result["a"]) is float


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    "body",
    [
        pickle.dumps(Harmful()),
        b"",
        b"\xff",
        b"null",
        b"{}",
        b"[1,2,3]",
        b'["Popen",null,{}]',
        b'["Cancel",null,{"request":"3"}]',
        b'["Cancel",null,{}]',
        b'["Cancel","x",{"request":3}]',
        b'["Failed",null,[]]',
        b'[["Cancel"],null,{"request":3}]',
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        read_message(io.BytesIO(len(body).to_bytes(8, "little") + body))


def test_a_length_that_is_none_takes_no_memory() -> None:
    with pytest.raises(WireError):
        read_message(io.BytesIO(b"\xff" * 64))


def test_a_message_that_is_too_long_is_refused_where_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 1000)
    with pytest.raises(AppError, match="too long"):
        encode(Progress("x" * 1000))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*wire._TYPES, "auto"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_a_message_or_refused(content: Any) -> None:
    received(content)


@given(st.sampled_from(MESSAGES), st.randoms(use_true_random=False), JSON)
def test_a_message_with_something_else_in_it_is_one_or_refused(message: object, chance: Any, other: Any) -> None:
    received(with_another(json.loads(encode(message)[8:]), chance, other))


def with_another(content: Any, chance: Any, other: Any) -> Any:
    """The same, but for one thing somewhere in it."""
    if not isinstance(content, (list, dict)) or not content or chance.random() < 0.2:
        return other
    place = chance.choice(list(content) if isinstance(content, dict) else range(len(content)))
    content[place] = with_another(content[place], chance, other)
    return content


def received(content: Any) -> None:
    body = json.dumps(content).encode()
    try:
        message = read_message(io.BytesIO(len(body).to_bytes(8, "little") + body))
    except WireError:
        return
    inner = message.message if isinstance(message, OfRequest) else message
    assert type(inner).__name__ in wire._TYPES
