"""A request of the chat completions API, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from specee.app.engine.protocol import Message
from specee.app.errors import USAGE, AppError
from specee.app.options import ChatOptions, replace_sampling

REFUSED = ("tools", "functions", "logprobs", "logit_bias", "response_format")
MAX_STOPS = 4  # as the API has it


@dataclass(frozen=True)
class CompletionRequest:
    """A request for an answer."""

    messages: tuple[Message, ...]
    options: ChatOptions
    stream: bool
    stream_usage: bool

    @classmethod
    def read(cls, body: dict[str, Any], defaults: ChatOptions) -> CompletionRequest:
        """Raises AppError for what is wrong, and for what is not supported here."""
        for name in REFUSED:
            if body.get(name) not in (None, [], {}, False, {"type": "text"}):
                raise AppError("not supported", f"{name!r} is not supported here", USAGE)
        if body.get("n", 1) != 1:
            raise AppError("not supported", "only n = 1 is supported", USAGE)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise AppError("bad request", "'messages' must be a list with at least one message", USAGE)
        sampling = {
            name: _number(body, name) for name in ("temperature", "top_p", "seed") if body.get(name) is not None
        }
        given = [body[name] for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
        limit = given[0] if given else defaults.max_tokens
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise AppError("bad request", "'max_tokens' must be a number from 1", USAGE)
        options = replace(
            defaults,
            sampling=replace_sampling(defaults.sampling, sampling),
            max_tokens=limit,
            stop=_stop(body.get("stop")),
        )
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        checked = tuple(_message(message) for message in messages)
        return cls(checked, options, bool(body.get("stream")), usage)


def _stop(given: Any) -> tuple[str, ...]:
    stop = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(stop, list) or len(stop) > MAX_STOPS or not all(isinstance(s, str) and s for s in stop):
        raise AppError("bad request", f"'stop' must be a text or a list of at most {MAX_STOPS} texts", USAGE)
    return tuple(stop)


def _number(body: dict[str, Any], name: str) -> float:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise AppError("bad request", f"{name!r} must be a number from 0", USAGE)
    return value


def _message(given: Any) -> Message:
    role, content = (given.get("role"), given.get("content")) if isinstance(given, dict) else (None, None)
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    role = "system" if role == "developer" else role
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        raise AppError("bad request", "a message has a role (system, user, assistant) and a text", USAGE)
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise AppError("bad request", "a message has half of a surrogate pair, which is no text", USAGE) from error
    return Message(role, content)
