"""Thoughts in the chat completions API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from serving import ASK, PATH, Make, call, request, running, text_of

from specee.app.engine.thinking import Thinking
from specee.app.engine.thought_splitter import ThoughtForm
from specee.app.serve.server import Server
from specee.native import library

try:
    library.load()
    NO_LIBRARY: Exception | None = None
except Exception as error:  # the reason stands in the report
    NO_LIBRARY = error

TAGS = ThoughtForm("<think>", "</think>", "<think>\n", "\n</think>\n\n")
SWITCH: Any = {"on": {"enable_thinking": True}, "off": {"enable_thinking": False}}
SCRIPT = b"<think>\nOne, \xc3\xa9.\n</think>\n\nTwo."
THOUGHT, ANSWER = "One, é.", "Two."
N_THOUGHT = len(SCRIPT) - len(b"\n\nTwo.")


@pytest.fixture
def backend(make_backend: Make) -> Any:
    made = make_backend(SCRIPT, n_ctx=400, n_slots=2)
    made.thinking = Thinking(TAGS, "on", SWITCH)
    made.info = replace(made.info, thinks="on", takes_calls=True, takes_tools=True)
    return made


@pytest.fixture
def server(backend: Any, make_link: Make) -> Iterator[Server]:
    with running(backend, make_link) as made:
        yield made


def deltas(server: Server, body: Any) -> list[Any]:
    response, text = request(server, "POST", PATH, {**body, "stream": True})
    assert response.status == 200
    lines = [line[6:] for line in text.decode().split("\n") if line.startswith("data: {")]
    return [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]


def given(backend: Any, server: Server) -> list[Any]:
    """What the template is told from now on."""
    told: list[Any] = []
    make_text = backend.format

    def format_chat(messages: Any, tools: Any = None, variables: Any = None) -> str:
        told.append((variables, [message.thought for message in messages]))
        return str(make_text(messages, tools))

    for slot in server.answers.client._engine.link.answerer._slots:  # type: ignore[union-attr]
        slot.backend.format = format_chat
    server.answers.client._engine.link.answerer.backend.format = format_chat  # type: ignore[union-attr]
    return told


def test_in_one_piece(server: Server) -> None:
    status, answer = call(server, ASK)
    message = answer["choices"][0]["message"]
    assert (status, message["content"], message["reasoning_content"]) == (200, ANSWER, THOUGHT)
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": N_THOUGHT}
    assert answer["usage"]["completion_tokens"] == len(SCRIPT) == len(answer["specee"]["exit_layers"])


def test_as_a_stream(server: Server) -> None:
    parts = deltas(server, ASK)
    assert "".join(part.get("reasoning_content", "") for part in parts) == THOUGHT
    assert "".join(part.get("content", "") for part in parts) == ANSWER
    kinds = [name for part in parts for name in part if name in ("content", "reasoning_content") and part[name]]
    assert kinds == sorted(kinds, reverse=True)  # the thought comes first


def test_a_thought_that_was_cut_may_come_back_alone(backend: Any, server: Server) -> None:
    told = given(backend, server)
    question = {"role": "user", "content": "And?"}
    for thought, code in (("One", 200), (None, 400)):
        cut = {"role": "assistant", "content": None, "reasoning_content": thought}
        assert call(server, {"messages": [*ASK["messages"], cut, question]})[0] == code
    assert told[-1][1] == [None] * 3, "as all thoughts of earlier answers it is not shown"


def test_the_official_client(server: Server) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(**ASK)
        assert whole.choices[0].message.reasoning_content == THOUGHT
        assert whole.usage.completion_tokens_details.reasoning_tokens == N_THOUGHT
        chunks = list(client.chat.completions.create(**ASK, stream=True))
        thoughts = [getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks]
        assert "".join(thoughts) == THOUGHT
        again = [*ASK["messages"], whole.choices[0].message, {"role": "user", "content": "And?"}]
        following = client.chat.completions.create(model="any", messages=again)
        assert following.choices[0].message.content == ANSWER
        client.chat.completions.create(**ASK, reasoning_effort="low")
        client.chat.completions.create(**ASK, extra_body={"chat_template_kwargs": {"enable_thinking": False}})


@pytest.mark.parametrize(
    ("body", "variables"),
    [
        ({}, {}),
        ({"think": "off"}, SWITCH["off"]),
        ({"think": "on"}, SWITCH["on"]),
        ({"reasoning_effort": "none"}, SWITCH["off"]),
        ({"chat_template_kwargs": {"enable_thinking": False}}, SWITCH["off"]),
        ({"chat_template_kwargs": {"thinking": True}}, SWITCH["on"]),
        ({"chat_template_kwargs": {}}, {}),
        ({"think": None, "reasoning_effort": None, "chat_template_kwargs": None}, {}),
        ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}, SWITCH["off"]),
    ],
)
def test_whether_it_thinks(backend: Any, server: Server, body: Any, variables: Any) -> None:
    told = given(backend, server)
    status, _ = call(server, {**ASK, **body})
    assert status == 200 and told[-1][0] == variables


def test_what_contradicts_itself(server: Server) -> None:
    status, answer = call(server, {**ASK, "reasoning_effort": "high", "chat_template_kwargs": {"thinking": False}})
    assert status == 400 and answer["error"]["param"] == "chat_template_kwargs.thinking"


@pytest.mark.parametrize(
    ("thinks", "body", "param"),
    [
        ("always", {"think": "off"}, "think"),
        ("always", {"reasoning_effort": "none"}, "reasoning_effort"),
        ("always", {"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
        ("never", {"think": "on"}, "think"),
        ("never", {"reasoning_effort": "high"}, "reasoning_effort"),
        ("never", {"reasoning_effort": "none", "think": "off"}, None),
        ("always", {"reasoning_effort": "high"}, None),
    ],
)
def test_what_a_model_cannot_be_told(
    make_backend: Make, make_link: Make, thinks: Any, body: Any, param: str | None
) -> None:
    backend = make_backend(b"Yes.")
    backend.info = replace(backend.info, thinks=thinks)
    with running(backend, make_link) as server:
        status, answer = call(server, {**ASK, **body})
    assert status == (200 if param is None else 400)
    assert param is None or answer["error"]["param"] == param


def test_thoughts_of_earlier_messages(backend: Any, server: Server) -> None:
    told = given(backend, server)
    call_of = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Two.", "reasoning_content": "Old"},
        {"role": "user", "content": "Ho"},
        {"role": "assistant", "content": None, "reasoning_content": "New", "tool_calls": [call_of]},
        {"role": "tool", "content": "1", "tool_call_id": "a"},
    ]
    status, _ = call(server, {"messages": chat})
    assert status == 200 and told[-1][1] == [None, None, None, "New", None]


def test_a_thought_that_is_cut_or_ended(server: Server) -> None:
    status, answer = call(server, {**ASK, "max_tokens": 12})
    choice = answer["choices"][0]
    assert status == 200 and choice["finish_reason"] == "length"
    assert (choice["message"]["content"], choice["message"]["reasoning_content"]) == ("", "One,")
    _, answer = call(server, {**ASK, "think_tokens": 12})
    assert answer["choices"][0]["message"]["reasoning_content"] == "One,"
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 12


@pytest.mark.skipif(NO_LIBRARY is not None, reason=str(NO_LIBRARY))
def test_the_form_of_an_answer_is_not_that_of_its_thought(backend: Any, make_link: Make) -> None:
    for engine in backend.engine.slots:
        engine.script = [*b'<think>\n"{\n</think>\n\n{}', 256]
    with running(backend, make_link) as server:
        status, answer = call(server, {**ASK, "response_format": {"type": "json_object"}})
    assert status == 200 and text_of(answer) == "{}"
    assert answer["choices"][0]["message"]["reasoning_content"] == '"{'
    assert backend.grammars[-2] is None and backend.grammars[-1] is not None


def test_logprobs_are_of_the_answer(server: Server) -> None:
    _, answer = call(server, {**ASK, "logprobs": True})
    content = answer["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in content).strip() == ANSWER


def test_calls_of_tools_come_behind_thoughts(backend: Any, make_link: Make) -> None:
    called = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    for engine in backend.engine.slots:
        engine.script = [*f"<think>\nI call {called}.\n</think>\n\n{called}".encode(), 256]
    tools = [{"type": "function", "function": {"name": "f"}}]
    with running(backend, make_link) as server:
        _, answer = call(server, {**ASK, "tools": tools})
    message = answer["choices"][0]["message"]
    assert [one["function"]["name"] for one in message["tool_calls"]] == ["f"]
    assert message["content"] is None and message["reasoning_content"].startswith("I call <tool_call>")
