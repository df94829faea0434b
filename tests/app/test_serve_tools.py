"""Tools: what is asked of the model, and its calls in the text of an answer."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import create_model
from real_engine import missing_library
from serving import ASK, Make, call, running

from specee.app.engine import json_schema
from specee.app.options import ChatOptions
from specee.app.serve.call_reader import CallReader
from specee.app.serve.errors import ApiError
from specee.app.serve.request import CompletionRequest
from specee.app.serve.tools import Tools
from specee.native import library

REASON = missing_library()


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
        # gpt-oss: what is left of its channels without control tokens
        ('commentary to=functions.weather json{"city": "Rome"}', "", [("weather", {"city": "Rome"})]),
        ('to=functions.weathercommentary json{"city": "Rome"}', "", [("weather", {"city": "Rome"})]),
        ("I look.commentary to=functions.time code{}", "I look.", [("time", {})]),
        ('commentary to=functions.weather json{"city": "Ro', None, []),
        ('commentary to=functions.unknown json{"city": "Rome"}', None, []),
        ("commentary to=functions.weather says it", None, []),
        ("commentary to=functions.weather json[1]", None, []),
        ("go to=fun", None, []),
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
    """They are found where the tool's schema stands in the call's; what looks like one in data or names stays."""
    properties = {
        "next": {"$ref": "#"},
        "city": {"$ref": "#/$defs/city"},
        "other": {"$ref": "#/properties/city"},
        "data": {"enum": [{"$ref": "#"}], "default": {"$ref": "#/x"}},
        "enum": {"items": {"$ref": "#/$defs/city"}},
    }
    inner = {"$defs": {"city": {"$ref": "#/definitions/name"}}, "definitions": {"name": {"type": "string"}}}
    given = {"type": "function", "function": {"name": "f", "parameters": {"properties": properties, **inner}}}
    chosen = tools_of(WEATHER, given, tool_choice="required")
    definitions = json.loads(chosen.json_schema or "")["$defs"]
    assert definitions["tool1"]["properties"] == {
        "next": {"$ref": "#/$defs/tool1"},
        "city": {"$ref": "#/$defs/tool1/$defs/city"},
        "other": {"$ref": "#/$defs/tool1/properties/city"},
        "data": properties["data"],
        "enum": {"items": {"$ref": "#/$defs/tool1/$defs/city"}},
    }
    assert definitions["tool1"]["$defs"] == {"city": {"$ref": "#/$defs/tool1/definitions/name"}}
    assert definitions["tool0"] == WEATHER["function"]["parameters"]
    json_schema.check(chosen.json_schema or "")


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize(
    "parameters", [None, {}, {"type": "object"}, {"title": "x"}, {"type": "object", "properties": {}}]
)
def test_a_tool_without_parameters_has_no_arguments(parameters: Any) -> None:
    function = {"name": "now", **({} if parameters is None else {"parameters": parameters})}
    chosen = tools_of({"type": "function", "function": function}, tool_choice="required")
    library.load()  # before the bindings, which make grammars
    assert 'specee-definition-0 ::= "{" space  "}" space' in json_schema.to_gbnf(chosen.json_schema or "")


def test_strict_tools_that_need_not_be_called() -> None:
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    assert tools_of(strict, tool_choice="auto").json_schema is None


@pytest.mark.parametrize(
    ("parameters", "at"),
    [
        ({"properties": {"a": {"$ref": "#/properties/b"}}}, "there is no '#/properties/b'"),
        ({"properties": {"a": {"not": {}}}}, "at #/properties/a: 'not'"),
        ({"$defs": 5, "properties": {}}, "'$defs' must be an object"),
        ({"properties": {"a": {"$ref": "http://x/y"}}}, "at #/properties/a: there is no 'http://x/y'"),
    ],
)
def test_a_tools_schema_is_refused_by_its_place(parameters: Any, at: str) -> None:
    with pytest.raises(ApiError) as caught:
        tools_of(
            WEATHER, {"type": "function", "function": {"name": "f", "parameters": parameters}}, tool_choice="required"
        )
    assert caught.value.param == "tools[1].function.parameters" and at in caught.value.message


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


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # the client library gives itself back
def test_answers_of_the_client_library_come_back_in(make_backend: Make, make_link: Make) -> None:
    """What it parses and gathers of an answer goes into the messages of the next request."""
    openai = pytest.importorskip("openai")
    library.load()  # before the bindings, which make grammars of schemas
    city = create_model("weather", city=(str, ...))
    tools, result = [openai.pydantic_function_tool(city)], {"role": "tool", "content": "sunny"}
    for answer, asked in ((ROME, {"tools": tools, "tool_choice": "required"}), ('{"city": "Rome"}', {})):
        backend = make_backend(answer.encode(), n_ctx=2000)
        backend.info = replace(backend.info, takes_tools=True, takes_calls=True)
        with (
            running(backend, make_link) as server,
            openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client,
        ):
            chat = client.chat.completions
            form = {} if asked else {"response_format": city}
            with chat.stream(**ASK, **asked, **form) as stream:
                streamed = stream.get_final_completion().choices[0].message
            parsed = chat.parse(**ASK, **asked, **form).choices[0].message
            messages = [parsed, streamed, *(one.model_dump() for one in (parsed, streamed))]
            if asked:
                assert parsed.tool_calls[0].function.parsed_arguments == city(city="Rome")
                chunks = list(chat.create(**ASK, **asked, stream=True))
                deltas = [one.model_dump() for c in chunks for one in c.choices[0].delta.tool_calls or ()]
                messages.append({"role": "assistant", "content": None, "tool_calls": deltas})
            else:
                assert parsed.parsed == city(city="Rome")
            for message in messages:
                calls = message["tool_calls"] if isinstance(message, dict) else message.tool_calls
                ids = [call["id"] if isinstance(call, dict) else call.id for call in calls or ()]
                results = [{**result, "tool_call_id": one} for one in ids]
                again = chat.create(model="any", messages=[*ASK["messages"], message, *results, *ASK["messages"]])
                assert again.choices[0].message.content == answer


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
