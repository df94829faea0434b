"""A request of the chat completions API, checked, as the engine takes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from specee.app import settings
from specee.app.engine import protocol
from specee.app.options import ChatOptions
from specee.app.serve import json_text, schema
from specee.app.serve.errors import bad_request, not_supported
from specee.app.serve.refusal import refusal
from specee.app.serve.tools import CalledFunction, ToolCall, Tools, check_schema
from specee.app.settings import shown

SAMPLING = tuple(settings.SAMPLING)
SCHEMA = "response_format.json_schema.schema"
EFFORTS: dict[str, settings.Think] = {
    "none": "off",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
NO_CALLS = "the model's chat template has no place for calls of tools and their results"


@dataclass(frozen=True)
class CompletionRequest:
    """A request for an answer."""

    messages: tuple[protocol.Message, ...]
    options: ChatOptions
    tools: Tools
    stream: bool
    stream_usage: bool

    @classmethod
    def read(
        cls,
        body: bytes,
        defaults: ChatOptions,
        *,
        takes_tools: bool = False,
        takes_calls: bool = False,
        cannot_think: Callable[[settings.Think], str | None] = lambda think: None,
    ) -> CompletionRequest:
        """Raises ApiError for what is wrong, and for what is not supported here.

        `takes_tools`, `takes_calls`: whether the model's template has a place for tools, and for calls and results.
        `cannot_think`: why the model cannot be told so.
        """
        given = _parse(body)
        try:
            request = schema.ChatCompletionRequest.model_validate(given)
        except ValidationError as error:
            raise refusal(error) from error
        messages = _messages(request.messages, takes_calls=takes_calls)
        tools = Tools.of(request)
        if tools.given and not takes_tools:
            raise not_supported("'tools': the model's chat template has no place for them", "tools")
        if request.stream_options is not None and not request.stream:
            raise bad_request("'stream_options': only together with 'stream'", "stream_options")
        usage = bool(request.stream_options and request.stream_options.include_usage)
        options = _options(request, tools, defaults)
        think = _think(request, cannot_think)
        options = options if think is None else replace(options, think=think)
        return cls(messages, options, tools, bool(request.stream), usage)


def _think(
    request: schema.ChatCompletionRequest, cannot_think: Callable[[settings.Think], str | None]
) -> settings.Think | None:
    """What a request says about thinking, in any of the ways; None: nothing."""
    told: dict[str, settings.Think] = {}
    if request.think is not None:
        told["think"] = request.think
    if request.reasoning_effort is not None:
        told["reasoning_effort"] = EFFORTS[request.reasoning_effort]
    if request.chat_template_kwargs is not None:
        for name, value in request.chat_template_kwargs.model_dump(exclude_none=True).items():
            told[f"chat_template_kwargs.{name}"] = "on" if value else "off"
    found: str | None = None
    for param, think in told.items():
        if (why := cannot_think(think)) is not None:
            raise not_supported(f"'{param}': {why}", param)
        if found is not None and (think == "off") != (told[found] == "off"):
            raise bad_request(f"'{param}': it is not as '{found}' says", param)
        found = found if found is not None and think == "on" else param
    return None if found is None else told[found]


def _parse(body: bytes) -> dict[str, Any]:
    try:
        given = json_text.read(body)
    except json_text.JsonError as error:
        param = json_text.in_javascript(error.path) or None
        raise bad_request(f"{'the body' if param is None else repr(param)}: {error}", param) from error
    if not isinstance(given, dict):
        raise bad_request("the body is not an object")
    return given


def _options(request: schema.ChatCompletionRequest, tools: Tools, defaults: ChatOptions) -> ChatOptions:
    given = {name: value for name in SAMPLING if (value := getattr(request, name)) is not None}
    if request.logit_bias is not None:
        given["logit_bias"] = tuple((int(token), bias) for token, bias in request.logit_bias.items())
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise bad_request("'max_tokens': not together with 'max_completion_tokens'", "max_tokens")
    if request.top_logprobs is not None and not request.logprobs:
        raise bad_request("'top_logprobs': only together with 'logprobs'", "top_logprobs")
    form = _json_schema(request)
    if form is not None and tools.given:
        raise bad_request("'response_format': not together with 'tools'", "response_format")
    return replace(
        defaults,
        sampling=replace(defaults.sampling, **given),
        max_tokens=request.max_tokens or request.max_completion_tokens or defaults.max_tokens,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        think_tokens=request.think_tokens or defaults.think_tokens,
        json_schema=form if form is not None else tools.json_schema,
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def _json_schema(request: schema.ChatCompletionRequest) -> str | None:
    form = request.response_format
    if isinstance(form, schema.AnyJson):
        return json.dumps({"type": "object"})
    if isinstance(form, schema.JsonOfSchema):
        check_schema(form.json_schema.schema_, SCHEMA)
        return json.dumps(form.json_schema.schema_)
    return None


def _messages(given: Sequence[schema.Message], *, takes_calls: bool) -> tuple[protocol.Message, ...]:
    """What the model is given. The results of calls stand in the order of the calls, as some templates show no ids."""
    messages: list[protocol.Message] = []
    open_calls: list[str] = []  # ids of calls whose results may come now
    results: dict[str, protocol.Message] = {}
    for i, message in enumerate(given):
        where = f"messages[{i}]"
        if isinstance(message, schema.ToolMessage):
            if not takes_calls:
                raise not_supported(f"'{where}.role': {NO_CALLS}", f"{where}.role")
            if message.tool_call_id not in open_calls or message.tool_call_id in results:
                param = f"{where}.tool_call_id"
                why = "answered twice" if message.tool_call_id in results else "not among the calls before this message"
                raise bad_request(f"'{param}': {shown(message.tool_call_id)} is {why}", param)
            results[message.tool_call_id] = protocol.Message(
                "tool", _text_of(message), tool_call_id=message.tool_call_id, name=message.name
            )
            continue
        messages += (results[call] for call in open_calls if call in results)
        open_calls, results = [], {}
        calls = None
        if isinstance(message, schema.AssistantMessage):
            parts = (message.content, message.refusal, message.reasoning_content)  # a cut thought has no content
            if all(part is None for part in parts) and not message.tool_calls:
                raise bad_request(f"'{where}': it has neither content nor tool calls", where)
            if message.tool_calls and not takes_calls:
                raise not_supported(f"'{where}.tool_calls': {NO_CALLS}", f"{where}.tool_calls")
            calls = _calls(message, where)
            open_calls = [call.id for call in message.tool_calls or ()]
        role = "system" if message.role == "developer" else message.role
        thought = message.reasoning_content if isinstance(message, schema.AssistantMessage) else None
        messages.append(
            protocol.Message(role, _text_of(message), tool_calls=calls, name=message.name, thought=thought or None)
        )
    return (*messages, *(results[call] for call in open_calls if call in results))


def _text_of(message: schema.Message) -> str:
    content = message.content
    if isinstance(message, schema.AssistantMessage) and not content:
        content = message.refusal
    if isinstance(content, list):
        return "".join(part.text if isinstance(part, schema.TextPart) else part.refusal for part in content)
    return content or ""


def _calls(given: schema.AssistantMessage, where: str) -> str | None:
    if not given.tool_calls:
        return None
    ids = set()
    for i, call in enumerate(given.tool_calls):
        if call.id in ids:
            param = f"{where}.tool_calls[{i}].id"
            raise bad_request(f"'{param}': another call has it, too", param)
        ids.add(call.id)
    return json.dumps([_call(call) for call in given.tool_calls])


def _call(given: schema.ToolCall) -> ToolCall:
    function = given.function
    called: CalledFunction = {"name": function.name, "arguments": function.arguments.strip() or "{}"}
    return {"id": given.id, "type": "function", "function": called}
