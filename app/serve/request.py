"""A request of the chat completions API, checked, as the engine takes it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from specee.app import settings
from specee.app.engine import protocol
from specee.app.options import ChatOptions
from specee.app.serve import schema
from specee.app.serve.errors import bad_request, not_supported
from specee.app.serve.refusal import refusal
from specee.app.serve.tool_calls import Tools

MAX_VALUES = 40_000
"""Of a body: more would be slow to check, and nobody sends them."""
SAMPLING = tuple(settings.SAMPLING)


@dataclass(frozen=True)
class CompletionRequest:
    """A request for an answer."""

    messages: tuple[protocol.Message, ...]
    options: ChatOptions
    tools: Tools
    stream: bool
    stream_usage: bool

    @classmethod
    def read(cls, body: bytes, defaults: ChatOptions, *, takes_tools: bool = False) -> CompletionRequest:
        """Raises ApiError for what is wrong, and for what is not supported here.

        `takes_tools`: whether the model's template has a place for tools.
        """
        given = _parse(body)
        try:
            request = schema.ChatCompletionRequest.model_validate(given)
        except ValidationError as error:
            raise refusal(error) from error
        messages = tuple(_message(message, i) for i, message in enumerate(request.messages))
        tools = Tools.of(request)
        if tools.given and not takes_tools:
            raise not_supported("'tools': the model's chat template has no place for them", "tools")
        if request.stream_options is not None and not request.stream:
            raise bad_request("'stream_options': only together with 'stream'", "stream_options")
        usage = bool(request.stream_options and request.stream_options.include_usage)
        return cls(messages, _options(request, tools, defaults), tools, bool(request.stream), usage)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        given = from_json(body)
    except ValueError as error:
        half = "half of a surrogate pair is no text; " if "hex escape" in str(error) else ""
        raise bad_request(f"the body is not JSON: {half}{error}") from error
    if not isinstance(given, dict):
        raise bad_request("the body is not an object")
    waiting: list[Any] = [given]
    count = 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            count += len(value)
            waiting.extend(value.values() if isinstance(value, dict) else value)
        if count > MAX_VALUES:
            raise bad_request(f"the body has more than {MAX_VALUES} values")
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
        json_schema=form if form is not None else tools.json_schema,
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def _json_schema(request: schema.ChatCompletionRequest) -> str | None:
    form = request.response_format
    if isinstance(form, schema.AnyJson):
        return json.dumps({"type": "object"})
    if isinstance(form, schema.JsonOfSchema):
        return schema.as_json(form.json_schema.schema_, "response_format.json_schema.schema")
    return None


def _message(given: schema.Message, index: int) -> protocol.Message:
    content = given.content
    text = "".join(part.text for part in content) if isinstance(content, list) else content or ""
    if isinstance(given, schema.ToolMessage):
        return protocol.Message("tool", text, tool_call_id=given.tool_call_id, name=given.name)
    calls = None
    if isinstance(given, schema.AssistantMessage):
        if given.content is None and not given.tool_calls:
            raise bad_request(f"'messages[{index}]': it has neither content nor tool calls", f"messages[{index}]")
        calls = _calls(given, index)
    role = "system" if given.role == "developer" else given.role
    return protocol.Message(role, text, tool_calls=calls, name=given.name)


def _calls(given: schema.AssistantMessage, index: int) -> str | None:
    if not given.tool_calls:
        return None
    for i, call in enumerate(given.tool_calls):
        try:
            arguments = from_json(call.function.arguments)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            where = f"messages[{index}].tool_calls[{i}].function.arguments"
            raise bad_request(f"'{where}': it must be a JSON object", where)
    return json.dumps([call.model_dump() for call in given.tool_calls])
