"""Why a request does not fit the schema, in words that name the parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from specee.app import settings
from specee.app.serve.errors import ApiError, bad_request, not_supported
from specee.app.serve.json_text import in_javascript
from specee.app.serve.schema import ChatCompletionRequest

NUMBERS = (*settings.SAMPLING, "max_tokens", "max_completion_tokens", "top_logprobs", "n")
NOT_THERE = ("extra_forbidden", "none_required")
BRANCHES = ("str", "constrained-str", "ChosenTool")
"""How pydantic names the alternatives of a type, which are no part of the request."""


def refusal(error: ValidationError) -> ApiError:
    """The error that says most: the one deepest in the request, where a value could have been of several types."""
    errors = error.errors(include_url=False, include_context=False)
    first = max(errors, key=lambda e: (len(e["loc"]), not e["type"].endswith("_type")))
    path = _path(first["loc"], is_name=first["type"] in (*NOT_THERE, "missing"))
    param = in_javascript(path)
    if first["type"] in NOT_THERE:
        return not_supported(f"{settings.shown(param)} is not supported here", param)
    if first["type"] == "missing":
        return bad_request(f"'{param}' is missing", param)
    value = settings.shown(first["input"]) if isinstance(first["input"], (str, int, float, type(None))) else "it"
    if param in NUMBERS:
        allowed = settings.allowed(ChatCompletionRequest.model_fields[param].annotation)
        return bad_request(f"'{param}': {value} is not {allowed}", param)
    _, _, what = first["msg"].partition(" should ")
    return bad_request(f"'{param}': {value} must {what}" if what else f"'{param}': {first['msg']}", param)


def _path(given: Sequence[Any], *, is_name: bool) -> list[Any]:
    """Where in the request it is, without the names of alternatives. `is_name`: the last part is none of these."""
    path = list(given)
    if path[0] == "messages":
        del path[2:3]  # the role
    if path[0] == "response_format":
        del path[1:2]  # its type
    *before, last = [part for part in path if part != "[key]"]
    kept = [part for part in before if not _is_branch(part)]
    return [*kept, last] if is_name or not _is_branch(last) else kept


def _is_branch(part: Any) -> bool:
    return part in BRANCHES or "[" in str(part)
