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

OF_TYPES = {
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "string_type": "a text",
    "bool_type": "true or false",
}


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
    return bad_request(f"'{param}': {value} must {_must(error, first)}", param)


def _must(error: ValidationError, first: Any) -> str:
    """What a value must be or have, in words of JSON."""
    kind, context = first["type"], next((e.get("ctx") for e in error.errors() if e["loc"] == first["loc"]), None) or {}
    if kind in OF_TYPES:
        return f"be {OF_TYPES[kind]}"
    if kind == "union_tag_not_found":
        return f"have {context['discriminator']}"
    if kind == "union_tag_invalid":
        return f"have one of {context['expected_tags']} as {context['discriminator']}"
    if kind in ("too_short", "too_long"):
        least, n = kind == "too_short", context["min_length" if kind == "too_short" else "max_length"]
        return f"have at {'least' if least else 'most'} {n} item{'' if n == 1 else 's'}"
    return str(first["msg"].partition(" should ")[2])


def _path(given: Sequence[Any], *, is_name: bool) -> list[Any]:
    """Where in the request it is, without the names of alternatives. `is_name`: the last part is none of these."""
    path = list(given)
    if path[0] == "messages":
        del path[2:3]  # the role
    if path[0] == "response_format":
        del path[1:2]  # its type
    for i, part in enumerate(path):
        if "tagged-union" in str(part):
            del path[i + 2 : i + 3]  # the type of a part of a content
            break
    *before, last = [part for part in path if part != "[key]"]
    kept = [part for part in before if not _is_branch(part)]
    return [*kept, last] if is_name or not _is_branch(last) else kept


def _is_branch(part: Any) -> bool:
    return part in BRANCHES or "[" in str(part)
