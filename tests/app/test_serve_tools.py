"""Tools: what is asked of the model, and its calls in the text of an answer."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import ASK, Make, call, running

from specee.app.options import ChatOptions
from specee.app.serve.call_reader import CallReader
from specee.app.serve.request import CompletionRequest
from specee.app.serve.tools import Tools


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WEATHER, TIME = tool("weather", city={"type": "string"}), tool("time", zone={"type": "string"})
ROME = '{"name": "weather", "arguments": {"city": "Rome"}}'


def tools_of(*tools: Any, **parameters: Any) -> Tools:
    body = json.dumps({"messages": ASK["messages"], "tools": tools, **parameters}).encode()
    return CompletionRequest.read(body, ChatOptions(), takes_tools=True).tools


BOTH = tools_of(WEATHER, TIME)


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("It is sunny.", "It is sunny.", []),
        ("", "", []),
        (ROME, "", [("weather", {"city": "Rome"})]),
        (f"\n{ROME}\n", "", [("weather", {"city": "Rome"})]),
        (f"<tool_call>\n{ROME}\n</tool_call>", "", [("weather", {"city": "Rome"})]),
        (f"<tool_call>{ROME}", "", [("weather", {"city": "Rome"})]),
        (f"I look. <tool_call>{ROME}</tool_call>", "I look. ", [("weather", {"city": "Rome"})]),
        (
            f'<tool_call>{ROME}</tool_call>\n<tool_call>{{"name": "time", "arguments": {{}}}}</tool_call>',
            "",
            [("weather", {"city": "Rome"}), ("time", {})],
        ),
        ('{"name": "weather", "parameters": {"city": "Rome"}}', "", [("weather", {"city": "Rome"})]),
        (f"<|python_tag|>{ROME}", "", [("weather", {"city": "Rome"})]),
        (f"[TOOL_CALLS][{ROME}, {ROME}]", "", [("weather", {"city": "Rome"})] * 2),
        (f"```json\n{ROME}\n```", "", [("weather", {"city": "Rome"})]),
        (f"{ROME}; {ROME}", "", [("weather", {"city": "Rome"})] * 2),
        (f"{ROME}\n{ROME}", "", [("weather", {"city": "Rome"})] * 2),
        # cut: what is complete, and the rest as text
        (
            f"<tool_call>{ROME}</tool_call><tool_call>{ROME[:9]}",
            f"<tool_call>{ROME[:9]}",
            [("weather", {"city": "Rome"})],
        ),
        (f"<tool_call>{ROME}</tool_call>\n<tool_ca", "\n<tool_ca", [("weather", {"city": "Rome"})]),
        (f"Hm.<tool_call>{ROME}</tool_call> So.", "Hm. So.", [("weather", {"city": "Rome"})]),
        (
            f"<tool_call>{{x</tool_call><tool_call>{ROME}</tool_call>",
            "<tool_call>{x</tool_call>",
            [("weather", {"city": "Rome"})],
        ),
        (f"[TOOL_CALLS][{ROME}, {ROME[:-4]}", ROME[:-4], [("weather", {"city": "Rome"})]),
        (f"{ROME}\n{ROME[:9]}", ROME[:9], [("weather", {"city": "Rome"})]),
        (ROME[:-1], None, []),
        (f"<tool_call>{ROME[:-1]}", None, []),
        # what looks like one and is none
        ('{"name": "weather", "arguments": {"city": NaN}}', None, []),
        ('{"name": "weather", "arguments": {"city": 1e999}}', None, []),
        ('{"name": "weather", "arguments": {"city": "\\ud800"}}', None, []),
        ('{"name": "unknown", "arguments": {}}', None, []),
        ('{"name": "weather", "arguments": "Rome"}', None, []),
        ('{"name": ["weather"], "arguments": {}}', None, []),
        ('{"name": {"weather": 1}}', None, []),
        ('{"city": "Rome"}', None, []),
        ("[1] A source", None, []),
        (f", {ROME}", None, []),
        (f"Like {ROME}", None, []),
        (f"[1] {ROME}", None, []),
        ("{broken", None, []),
        ("<tool_call>broken</tool_call>", None, []),
        ("<tool_cal", None, []),
        ("a < b <tool", None, []),
        ("[" * 1000, None, []),
        ("```python\nprint()\n```", None, []),
    ],
)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_calls_in_an_answer(text: str, content: str | None, calls: list[Any], data: Any) -> None:
    """However it comes in pieces, and no part of a call is shown. `content` None: the whole text."""
    reader = CallReader(BOTH)
    ends = [0, *sorted(data.draw(st.sets(st.integers(0, len(text))))), len(text)]
    shown = "".join(reader.add(text[begin:end]) for begin, end in pairwise(ends)) + reader.end()
    assert [(one["function"]["name"], json.loads(one["function"]["arguments"])) for one in reader.calls] == calls
    assert shown == (text if content is None else content)


def test_text_is_shown_as_it_comes() -> None:
    reader = CallReader(BOTH)
    assert [reader.add(piece) for piece in ("It ", "is <", "b> ", "<tool", "_x")] == [
        "It ",
        "is ",
        "<b> ",
        "",
        "<tool_x",
    ]
    reader = CallReader(tools_of(WEATHER, tool_choice="none"))
    assert reader.add(ROME) == ROME and reader.end() == "" and not reader.calls


@pytest.mark.parametrize(
    ("held", "released"),
    [
        ("```", "p"),
        ("```j", "a"),
        ("```json\n{", "}"),
        ("[", "1"),
        ("[ ", "x"),
        ("[TOOL", " "),
        ("{", "x"),
        ('{"', "x"),
        ('{"na', "v"),
        ('{"name": "w', "o"),
        ('{"name": "weather"', "x"),
        ('{"name": "weather", "arguments": ', '"'),
        ('{"name": "weather", "arguments": {"a": tr', "y"),
        ('{"name": "weather", "arguments": {"a": 1e', "x"),
        ('{"type": "function", "name": ', "1"),
        ('{"type": "function"', "}"),
        ("<tool_call>", "x"),
        ('<tool_call>{"', "x"),
        (f"{ROME}\n", "S"),
        (f"```\n{ROME}\n```\n", "S"),
        (f"<tool_call>{ROME}</tool_call>\n", "S"),
    ],
)
def test_text_is_held_only_while_it_may_be_a_call(held: str, released: str) -> None:
    reader = CallReader(BOTH)
    assert "".join(map(reader.add, held)) == "" and reader.add(released).endswith(released)
    assert reader.add(" and more ") == " and more "


def test_choices() -> None:
    assert BOTH.given is not None and json.loads(BOTH.given) == [WEATHER, TIME]
    assert BOTH.json_schema is None and BOTH.names == {"weather", "time"}
    assert tools_of(WEATHER, tool_choice="auto") == tools_of(WEATHER)
    assert tools_of(WEATHER, tool_choice="none").given is None
    for choice, names in (
        ("required", {"weather", "time"}),
        ({"type": "function", "function": {"name": "time"}}, {"time"}),
    ):
        chosen = tools_of(WEATHER, TIME, tool_choice=choice)
        assert chosen.json_schema is not None and chosen.names == names
        calls = json.loads(chosen.json_schema)["anyOf"]
        assert {one["properties"]["name"]["const"] for one in calls} == names
        reader = CallReader(chosen)
        assert reader.add(ROME) == ""
    reader = CallReader(tools_of(WEATHER, parallel_tool_calls=False))
    reader.add(f"[{ROME}, {ROME}]")
    reader.end()
    assert len(reader.calls) == 1


def test_references_in_the_schema_of_a_call() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}, "city": {"$ref": "#/$defs/city"}}}
    inner = {"city": {"$ref": "#/definitions/name"}}
    parameters = {**node, "$defs": inner, "definitions": {"name": {"type": "string"}}}
    given = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    schema = json.loads(tools_of(WEATHER, given, tool_choice="required").json_schema or "")
    definitions = schema["$defs"]
    assert definitions["tool1"]["properties"] == {
        "next": {"$ref": "#/$defs/tool1"},
        "city": {"$ref": "#/$defs/tool1-city"},
    }
    assert definitions["tool1-city"] == {"$ref": "#/$defs/tool1-name"}
    assert definitions["tool1-name"] == {"type": "string"} and definitions["tool0"] == WEATHER["function"]["parameters"]


def test_calls_over_http(make_backend: Make, make_link: Make) -> None:
    backend = make_backend(ROME.encode(), n_ctx=2000)
    backend.info = replace(backend.info, takes_tools=True, takes_calls=True)
    with running(backend, make_link) as server:
        _, answer = call(server, {**ASK, "tools": [WEATHER]})
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
        (made,) = choice["message"]["tool_calls"]
        assert made["type"] == "function" and json.loads(made["function"]["arguments"]) == {"city": "Rome"}
        openai = pytest.importorskip("openai")
        with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client:
            chunks = list(client.chat.completions.create(**ASK, tools=[WEATHER], stream=True))
            deltas = [chunk.choices[0].delta for chunk in chunks]
            (call_of_stream,) = [one for delta in deltas for one in delta.tool_calls or []]
            assert call_of_stream.index == 0 and call_of_stream.function.name == "weather"
            assert not any(delta.content for delta in deltas) and chunks[-1].choices[0].finish_reason == "tool_calls"
            first = client.chat.completions.create(**ASK, tools=[WEATHER]).choices[0].message
            result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}
            again = client.chat.completions.create(
                model="any", messages=[*ASK["messages"], first.model_dump(), result], tools=[WEATHER]
            )
            assert again.choices[0].finish_reason == "tool_calls"
            stopped = client.chat.completions.create(**ASK, tools=[WEATHER], max_tokens=10)
            assert stopped.choices[0].message.content == ROME[:10] and stopped.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_cut_in_a_call(make_backend: Make, make_link: Make, stream: bool) -> None:
    """What is complete is returned as calls, the rest as text, and the reason is the cut."""
    one = f"<tool_call>{ROME}</tool_call>"
    backend = make_backend((one + one).encode(), n_ctx=2000)
    backend.info = replace(backend.info, takes_tools=True, takes_calls=True)
    openai = pytest.importorskip("openai")
    with (
        running(backend, make_link) as server,
        openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client,
    ):
        for length, n_calls, text in (
            (len(one) + 20, 1, one[:20]),
            (len(one), 1, ""),
            (20, 0, one[:20]),
            (2 * len(one) - 1, 2, ""),
        ):
            made = client.chat.completions.create(**ASK, tools=[WEATHER], max_tokens=length, stream=stream)
            if stream:
                choices = [chunk.choices[0] for chunk in made]
                content = "".join(choice.delta.content or "" for choice in choices)
                calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
                reason = choices[-1].finish_reason
            else:
                message = made.choices[0].message
                content, calls, reason = message.content or "", message.tool_calls or [], made.choices[0].finish_reason
            assert (len(calls), content, reason) == (n_calls, text, "length"), length
            assert all(json.loads(call.function.arguments) == {"city": "Rome"} for call in calls)
