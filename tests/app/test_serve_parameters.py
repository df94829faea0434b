"""Every parameter of the chat completions API is honoured, or refused with its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from specee.app.engine.chat_template import ChatTemplate
from specee.app.options import ChatOptions, Sampling
from specee.app.serve.errors import ApiError, error_object
from specee.app.serve.json_text import MAX_VALUES
from specee.app.serve.request import CompletionRequest
from specee.app.serve.schema import ChatCompletionRequest

USER = {"role": "user", "content": "Hi"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
NAN, INF = float("nan"), float("inf")


def read(messages: Any = (USER,), **parameters: Any) -> CompletionRequest:
    body = json.dumps({"messages": messages, **parameters}).encode()
    return CompletionRequest.read(body, ChatOptions(), takes_tools=True, takes_calls=True)


def refusal(**parameters: Any) -> Any:
    """The error object of a request that is refused."""
    with pytest.raises(ApiError) as caught:
        read(**parameters)
    assert caught.value.status == 400
    return error_object(caught.value)["error"]


def test_sampling_is_as_the_request_says_and_else_as_serve_was_started() -> None:
    given = {
        "temperature": 0.3,
        "top_k": 7,
        "top_p": 0.8,
        "min_p": 0,
        "repeat_penalty": 1,
        "repeat_last_n": 32,
        "presence_penalty": -1.5,
        "frequency_penalty": 2,
        "seed": 2**32 - 1,
    }
    expected = Sampling(0.3, 7, 0.8, 0.0, 1.0, 32, 2**32 - 1, -1.5, 2.0, ((5, -100.0), (17, 1.5)))
    assert read(**given, logit_bias={"5": -100, "17": 1.5}).options.sampling == expected
    assert read(**dict.fromkeys(given)).options == read().options == ChatOptions()


@pytest.mark.parametrize("name", ChatCompletionRequest.model_fields)
def test_null_stands_for_the_default(name: str) -> None:
    if name != "messages":
        assert read(**{name: None}) == read()


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"stop": "a"}, {"stop": ("a",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": []}, {"stop": ()}),
        ({"logprobs": True}, {"top_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 20}, {"top_logprobs": 20}),
        ({"logprobs": False}, {"top_logprobs": None}),
        ({"response_format": {"type": "text"}}, {"json_schema": None}),
        ({"response_format": {"type": "json_object"}}, {"json_schema": '{"type": "object"}'}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}},
            {"json_schema": '{"type": "array"}'},
        ),
        ({"n": 1, "store": False, "service_tier": "auto", "modalities": ["text"], "user": "me", "tools": []}, {}),
    ],
)
def test_what_is_honoured(parameters: Any, options: Any) -> None:
    assert read(**parameters).options == ChatOptions(**options)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "temperature": ["hot", -1, 11, NAN, INF, -INF, True, [], {}, 1e400, "0.5"],
        "top_p": [-0.1, 1.1, NAN, "x", False],
        "top_k": [-1, 1.5, 10**30, "40", True],
        "min_p": [2, -1, NAN],
        "repeat_penalty": [0, -1, NAN, 1000],
        "repeat_last_n": [-1, 10**9, 0.5],
        "presence_penalty": [-2.5, 3, "x", NAN],
        "frequency_penalty": [-2.5, 3, "x", INF],
        "seed": [-1, 2**32, 1.5, "x", True],
        "max_tokens": [0, -1, 1.5, "5", True, 10**20],
        "max_completion_tokens": [0, -1, "5"],
        "n": [0, 2, True, 1.0, "1"],
        "stop": ["", [""], [1], ["a"] * 5, {"a": 1}, 7, "x" * 1001],
        "logit_bias": [{"x": 1}, {"1": 101}, {"1": NAN}, {"-1": 1}, [1], {"1": "x"}, {str(i): 0 for i in range(1025)}],
        "logprobs": [1, "true", []],
        "top_logprobs": [-1, 21, 1.5, True],
        "stream": [1, "yes", {}],
        "stream_options": [1, {"x": 1}, {"include_usage": 1}, {"include_obfuscation": True}],
        "response_format": ["json", {"type": "xml"}, {"type": "json_schema"}, {}, {"type": "json_object", "x": 1}],
        "tools": [{}, [{}], [1], [{"type": "web_search"}], [WEATHER, WEATHER], [WEATHER] * 129],
        "tool_choice": ["always", {}, 1, "required", "auto", {"type": "function", "function": {"name": "weather"}}],
        "parallel_tool_calls": [1, "no"],
        "messages": [None, [], {}, "Hi", [1], [None], [{}], [{"role": "robot", "content": "x"}]],
        "model": [1, [], {}],
        "user": [1, "x" * 1001],
        "modalities": [["audio"], ["text", "audio"], "text"],
        "store": [True, 0],
        "service_tier": ["flex", 1],
        "reasoning_effort": ["much", 1, True],
        "think": ["maybe", True, 1],
        "think_tokens": [0, 1.5, "1"],
        "chat_template_kwargs": [1, [], {"enable_thinking": "yes"}, {"enable_thinking": 1}, {"x": True}],
        "verbosity": ["low"],
        "audio": [{}],
        "functions": [[], [{}]],
        "function_call": ["auto"],
        "metadata": [{}],
        "prediction": [{"type": "content", "content": "x"}],
        "web_search_options": [{}],
        "best_of": [1],
        "\x1b[2J": [1],
        "__class__": [1],
    }.items(),
)
def test_what_cannot_be_is_refused_with_its_name(name: str, values: list[Any]) -> None:
    for value in values:
        error = refusal(**{name: value})
        shown = name.encode("unicode_escape").decode()
        assert shown in error["message"] and "\n" not in error["message"], (value, error)
        assert error["param"].split("[")[0].split(".")[0] == name.split("[")[0], (value, error)
        assert error["type"] == "invalid_request_error" and len(error["message"]) < 400


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"top_logprobs": 5, "logprobs": False}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "time"}}}, "tool_choice"),
    ],
)
def test_what_does_not_go_together(parameters: Any, name: str) -> None:
    assert refusal(**parameters)["param"] == name


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "user", "content": 1}, "messages[0].content"),
        ({"role": "user", "content": []}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content[0]"),
        ({"role": "user", "content": "x", "audio": 1}, "messages[0].audio"),
        ({"role": "assistant"}, "messages[0]"),
        ({"role": "assistant", "content": "x", "audio": {"id": "1"}}, "messages[0].audio"),
        ({"role": "assistant", "content": "x", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "user", "content": "x", "parsed": None}, "messages[0].parsed"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls[0]"),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_messages_that_cannot_be(message: Any, where: str) -> None:
    error = refusal(messages=[message])
    assert error["param"].startswith(where) and where in error["message"]


def test_messages() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b\0"}]
    request = read(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": parts, "name": "me"},
            # as the official client gives a reply back
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "audio": None},
            {"role": "tool", "content": "sunny", "tool_call_id": "1"},
            {"role": "assistant", "content": "", "annotations": [], "function_call": None},
        ],
        tools=[WEATHER],
    )
    system, user, calls, tool, last = request.messages
    assert (system.role, system.content) == ("system", "Be brief.")
    assert (user.content, user.name) == ("ab\0", "me")
    assert calls.tool_calls is not None and json.loads(calls.tool_calls) == [CALL] and calls.content == ""
    assert (tool.role, tool.content, tool.tool_call_id) == ("tool", "sunny", "1")
    assert (last.role, last.content, last.tool_calls) == ("assistant", "", None)


def test_messages_that_others_have_written() -> None:
    """What client libraries and other servers add changes nothing, and what a model wrote as arguments is passed on."""
    function = {"name": "get.weather", "arguments": "", "parsed_arguments": None}
    odd = ["{", "[1]", '{"a": NaN}', "Rome", '{"a":' * 150, '{"a": "\\ud800"}']
    request = read(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "annotations": [{"type": "url_citation"}],
                "parsed": {"a": 1},
                "reasoning": "Hm.",
                "reasoning_content": "Hm.",
                "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}],
                "tool_calls": [
                    {"id": "1", "type": None, "index": 0, "function": function},
                    *({"id": text, "function": {"name": "f", "arguments": text}} for text in odd),
                ],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "1", "status": "success"},
            {"role": "assistant", "content": None, "refusal": "I cannot."},
            {
                "role": "assistant",
                "content": [{"type": "refusal", "refusal": "Nor "}, {"type": "text", "text": "so."}],
            },
        ]
    )
    _, answer, _, *refusals = request.messages
    calls = json.loads(answer.tool_calls or "")
    assert calls[0] == {"id": "1", "type": "function", "function": {"name": "get.weather", "arguments": "{}"}}
    assert [call["function"]["arguments"] for call in calls[1:]] == odd
    assert [one.content for one in refusals] == ["I cannot.", "Nor so."]
    render = ChatTemplate("{% for m in messages %}{{ m.tool_calls | default(m.content) | tojson }}{% endfor %}", {})
    assert "Rome" in render(request.messages).encode().decode()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"messages": []}, "'messages': it must have at least 1 item"),
        ({"messages": [5]}, "'messages[0]': 5 must be an object"),
        ({"messages": 5}, "'messages': 5 must be a list"),
        ({"messages": [{}]}, "'messages[0]': it must have 'role'"),
        (
            {"messages": [{"role": "robot"}]},
            "'messages[0]': it must have one of 'system', 'developer', 'user', 'assistant', 'tool' as 'role'",
        ),
        ({"messages": [{"role": "user", "content": []}]}, "'messages[0].content': it must have at least 1 item"),
        ({"messages": [{"role": "user", "content": {}}]}, "'messages[0].content': it must be a text"),
        ({"messages": [{"role": "user", "content": [5]}]}, "'messages[0].content[0]': 5 must be an object"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "text"}]}]},
            "'messages[0].content[0].text' is missing",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "it must be an object"),
        ({"stop": ["a"] * 5}, "'stop': it must have at most 4 items"),
        ({"stream": 1}, "'stream': 1 must be true or false"),
        ({"logit_bias": {str(i): 0 for i in range(1025)}}, "'logit_bias': it must have at most 1024 items"),
        ({"response_format": {}}, "'response_format': it must have 'type'"),
        ({"store": True}, "'store': true must be false"),
        ({"messages": None}, "'messages': null must be a list"),
        ({"messages": [{"role": "user", "content": None}]}, "'messages[0].content': null must be a text"),
        ({"temperature": True}, "'temperature': true is not a number from 0 to 10"),
        ({"n": False}, "'n': false is not 1, the only number supported"),
        ({"logprobs": "True"}, "'logprobs': 'True' must be true or false"),
    ],
)
def test_refusals_are_in_words_of_json(parameters: Any, says: str) -> None:
    assert refusal(**parameters)["message"].endswith(says)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"messages": ["\xff"]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b"1" * 100_000, "not JSON"),
        (b'{"messages": "\\ud800"}', "surrogate"),
        (b'{"messages": "\\ud800x"}', "surrogate"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'"text"', "not an object"),
        (json.dumps({str(i): 0 for i in range(MAX_VALUES + 1)}).encode(), "values"),
        (json.dumps({"messages": [[0] * 1000] * 1000}).encode(), "values"),
    ],
)
def test_bodies_that_are_no_request(body: bytes, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        CompletionRequest.read(body, ChatOptions())
    assert caught.value.status == 400


def refused_body(body: str) -> Any:
    with pytest.raises(ApiError) as caught:
        CompletionRequest.read(body.encode(), ChatOptions(), takes_tools=True, takes_calls=True)
    assert caught.value.status == 400
    return error_object(caught.value)["error"]


ASKED = '"messages": [{"role": "user", "content": "Hi"}]'
SCHEMA = '"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": %s}}'


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (f'{{{ASKED}, "temperature": 0, "temperature": 1}}', "temperature"),
        (f'{{{ASKED}, "temperature": 1, "temperature": 1}}', "temperature"),
        (f'{{{ASKED}, "temp\\u0065rature": 1, "temperature": 1}}', "temperature"),
        (f"{{{ASKED}, {ASKED}}}", "messages"),
        ('{"messages": [{"role": "system", "content": "a", "role": "user"}]}', "messages[0].role"),
        (f'{{{ASKED}, "logit_bias": {{"5": 1, "5": 2}}}}', "logit_bias.5"),
        (f'{{{ASKED}, "unknown": {{"a": 1, "a": 2}}}}', "unknown.a"),
        (
            "{" + ASKED + ", " + SCHEMA % '{"type": "object", "type": "array"}' + "}",
            "response_format.json_schema.schema.type",
        ),
        (f'{{{ASKED}, "temperature": NaN}}', "temperature"),
        (f'{{{ASKED}, "temperature": -Infinity}}', "temperature"),
        (f'{{{ASKED}, "temperature": 1e400}}', "temperature"),
        (f'{{{ASKED}, "top_k": 1e400}}', "top_k"),
        (f'{{{ASKED}, "logit_bias": {{"5": -1e999}}}}', "logit_bias.5"),
        ("{" + ASKED + ", " + SCHEMA % '{"maximum": Infinity}' + "}", "response_format.json_schema.schema.maximum"),
        (f'{{{ASKED}, "metadata": [[NaN]]}}', "metadata[0][0]"),
        (f'{{{ASKED}, "max_tokens": 5.0}}', "max_tokens"),
        (f'{{{ASKED}, "max_tokens": 5e0}}', "max_tokens"),
        (f'{{{ASKED}, "seed": 1.0}}', "seed"),
        (f'{{{ASKED}, "seed": 18446744073709551616}}', "seed"),
        (f'{{{ASKED}, "max_tokens": {"9" * 4000}}}', "max_tokens"),
    ],
)
def test_json_that_has_two_meanings_or_none(body: str, param: str) -> None:
    error = refused_body(body)
    assert error["param"] == param and param in error["message"] and len(error["message"]) < 400


@pytest.mark.parametrize("token", ["05", "00", "+5", "5.0", " 5", "5 ", "0x5", "5_0", "\u0665", "", "-0", "1e1", "5\n"])
def test_a_token_has_one_spelling(token: str) -> None:
    assert refusal(logit_bias={"5": 1, token: 2})["param"].startswith("logit_bias")
    assert read(logit_bias={"0": 1, "5": 2}).options.sampling.logit_bias == ((0, 1.0), (5, 2.0))


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "f"}}])
@pytest.mark.parametrize(
    ("function", "param"),
    [
        ({"parameters": {"type": "string"}}, "tools[0].function.parameters"),
        ({"parameters": {"type": "array", "items": {}}}, "tools[0].function.parameters"),
        ({"parameters": {"type": ["object", "null"]}}, "tools[0].function.parameters"),
        ({"parameters": {"type": None}}, "tools[0].function.parameters"),
        ({"parameters": []}, "tools[0].function.parameters"),
        ({"parameters": True}, "tools[0].function.parameters"),
        ({"parameters": "{}"}, "tools[0].function.parameters"),
        ({"name": ""}, "tools[0].function.name"),
        ({"name": "a b"}, "tools[0].function.name"),
        ({"name": "x" * 65}, "tools[0].function.name"),
        ({"name": "é"}, "tools[0].function.name"),
        ({"name": "f\n"}, "tools[0].function.name"),
        ({"name": 1}, "tools[0].function.name"),
        ({"description": 1}, "tools[0].function.description"),
        ({"more": 1}, "tools[0].function.more"),
    ],
)
def test_tools_that_cannot_be(function: Any, param: str, choice: Any) -> None:
    error = refusal(tools=[{"type": "function", "function": {"name": "f", **function}}], tool_choice=choice)
    assert error["param"] == param and param in error["message"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "array"}}},
        {"$ref": "#"},
        {"enum": [1, "a"]},
        {"const": None},
        {"anyOf": [{"type": "object"}, {"type": "null"}]},
        {"type": "object", "properties": {"a": {"minimum": 1}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}},
    ],
)
def test_parameters_that_a_demanded_call_cannot_have(parameters: Any) -> None:
    tools = [WEATHER, {"type": "function", "function": {"name": "f", "parameters": parameters}}]
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        error = refusal(tools=tools, tool_choice=choice)
        assert error["param"] == "tools[1].function.parameters" and error["param"] in error["message"]
    read(tools=tools, tool_choice={"type": "function", "function": {"name": "weather"}})
    read(tools=tools)


def test_choices_of_tools_that_cannot_be() -> None:
    named = {"type": "function", "function": {"name": "time"}}
    for tools in ([], None):
        for choice in ("required", "auto", named):
            assert refusal(tools=tools, tool_choice=choice)["param"] == "tool_choice"
    assert refusal(tools=[WEATHER], tool_choice=named)["param"] == "tool_choice"
    for choice in (
        {"type": "function"},
        {"type": "function", "function": {}},
        {"type": "function", "function": {"name": "a b"}},
        {"type": "allowed_tools", "allowed_tools": {}},
        {"type": "custom", "custom": {"name": "weather"}},
        "weather",
    ):
        assert refusal(tools=[WEATHER], tool_choice=choice)["param"].startswith("tool_choice")
    assert refusal(tools=[WEATHER, WEATHER])["param"] == "tools[1].function.name"


def called(*ids: str) -> Any:
    return {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": one} for one in ids]}


def result(call: str, content: str = "sunny") -> Any:
    return {"role": "tool", "tool_call_id": call, "content": content}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([result("a")], "messages[0].tool_call_id"),
        ([USER, result("a")], "messages[1].tool_call_id"),
        ([USER, called("a"), result("b")], "messages[2].tool_call_id"),
        ([USER, called("a"), result("")], "messages[2].tool_call_id"),
        ([USER, called("a"), result("a"), result("a")], "messages[3].tool_call_id"),
        ([USER, called("a"), USER, result("a")], "messages[3].tool_call_id"),
        ([USER, called("a"), result("a"), called("b"), result("a")], "messages[4].tool_call_id"),
        ([USER, called("a", "a"), result("a")], "messages[1].tool_calls[1].id"),
        ([USER, called("a"), {"role": "tool", "content": "x"}], "messages[2].tool_call_id"),
        ([USER, called("a"), {**result("a"), "tool_call_id": None}], "messages[2].tool_call_id"),
        ([{**USER, "tool_calls": [CALL]}], "messages[0].tool_calls"),
        ([{**USER, "tool_call_id": "a"}], "messages[0].tool_call_id"),
    ],
)
def test_results_of_no_call(messages: Any, param: str) -> None:
    error = refusal(messages=messages)
    assert error["param"] == param and param in error["message"]


def test_results_stand_in_the_order_of_their_calls() -> None:
    chat = [USER, called("a", "b"), result("b", "2"), result("a", "1"), called("a"), result("a", "3")]
    assert [m.content for m in read(messages=chat).messages if m.role == "tool"] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, called("a")], "messages[1].tool_calls"),
        ([USER, called("a"), result("a")], "messages[1].tool_calls"),
        ([USER, result("a")], "messages[1].role"),
    ],
)
def test_calls_need_a_template_that_shows_them(messages: Any, param: str) -> None:
    body = json.dumps({"messages": messages}).encode()
    with pytest.raises(ApiError, match="not supported") as caught:
        CompletionRequest.read(body, ChatOptions())
    assert caught.value.param == param


def test_tools_need_a_template_that_takes_them() -> None:
    body = json.dumps({"messages": [USER], "tools": [WEATHER]}).encode()
    with pytest.raises(ApiError, match="not supported: 'tools'"):
        CompletionRequest.read(body, ChatOptions(), takes_tools=False)
