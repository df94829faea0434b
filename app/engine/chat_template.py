"""A chat as the prompt that the model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from specee.app.engine import template_limits
from specee.app.engine.protocol import Message
from specee.app.errors import MODEL_MISSING, USAGE, AppError


class Formatter(Protocol):
    """Makes the text of a chat; `tools`: the JSON of a list; `variables`: what else the template knows by name."""

    def __call__(
        self, messages: Sequence[Message], tools: str | None = None, variables: Mapping[str, Any] | None = None, /
    ) -> str: ...


# For models that bring no template: the most common form.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_formatter(template: str | None, *, bos: str, eos: str) -> Formatter:
    """The model's own template in the bindings' sandbox, bounded. Raises AppError when it fails for every chat."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    try:
        formatter = Jinja2ChatFormatter(template="", bos_token=bos, eos_token=eos)
        # compiled with the bounds only: jinja2 computes what is constant then
        formatter._environment = template_limits.bounded(formatter._environment, template or CHATML)
    except Exception as error:  # the template is code of the model's file, and may fail in any way
        raise _bad(error) from error

    def render(
        messages: Sequence[Message], tools: str | None = None, variables: Mapping[str, Any] | None = None, /
    ) -> str:
        try:
            chat: Any = [_as_object(message) for message in messages]
            length = len(tools or "") + sum(
                len(m.content) + len(m.tool_calls or "") + len(m.thought or "") for m in messages
            )
            with template_limits.deadline(length):
                given = None if tools is None else json.loads(tools)
                return str(formatter(messages=chat, tools=given, **(variables or {})).prompt)
        except Exception as error:
            why = str(error) or type(error).__name__
            raise AppError("chat template", f"the model's template refuses this chat: {why}", USAGE) from error

    try:
        text = render((Message("user", "?"),))
    except AppError as error:
        raise _bad(error.__cause__ or error) from error
    if not text.strip():
        raise no_text()
    return render


def no_text() -> AppError:
    """A template that leaves out all that was said."""
    return AppError(
        "bad chat template", "it gives no text; take another model, or another file of this one", MODEL_MISSING
    )


def _bad(error: BaseException) -> AppError:
    why = str(error) or type(error).__name__
    return AppError("bad chat template", f"the model's template cannot be used: {why}", MODEL_MISSING)


THOUGHT_NAMES = ("reasoning_content", "reasoning", "thinking")
"""Under which templates look for the thought of a message."""
PROBE = "specee_probe"
TOOLS = json.dumps([{"type": "function", "function": {"name": PROBE, "description": "", "parameters": {}}}])


def takes_tools(render: Formatter) -> bool:
    """Whether the template has a place for tools."""
    try:
        return PROBE in render((Message("user", "?"),), TOOLS)
    except AppError:
        return False


def takes_calls(render: Formatter) -> bool:
    """Whether the template has a place for calls of tools, and for their results."""
    call_id = "call00001"  # as long as Mistral's templates want it
    call = {"id": call_id, "type": "function", "function": {"name": PROBE, "arguments": '{"probed": 1}'}}
    chat = (
        Message("user", "?"),
        Message("assistant", "", tool_calls=json.dumps([call])),
        Message("tool", "specee_result", tool_call_id=call_id, name=PROBE),
    )
    try:
        text = render(chat, None)
    except AppError:
        return False
    return PROBE in text and "probed" in text and "specee_result" in text


def _arguments(text: str) -> Any:
    """The object that a text is, or the text: a model wrote it, and templates write a text as it is."""
    with suppress(ValueError, RecursionError):
        given = json.loads(text)
        if isinstance(given, dict):
            json.dumps(given, ensure_ascii=False, allow_nan=False).encode()  # a template can write it
            return given
    return text


def _as_object(message: Message) -> dict[str, Any]:
    """A message as templates expect it: arguments of tool calls are objects there."""
    given: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls is not None:
        given["tool_calls"] = json.loads(message.tool_calls)
        for call in given["tool_calls"]:
            call["function"]["arguments"] = _arguments(call["function"]["arguments"])
    if message.tool_call_id is not None:
        given["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        given["name"] = message.name
    if message.thought is not None:
        given |= dict.fromkeys(THOUGHT_NAMES, message.thought)
    return given
