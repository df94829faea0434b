"""Tools that a model may call, or must."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from typing_extensions import TypedDict

from specee.app.engine import json_schema
from specee.app.engine.schema_forms import ANNOTATIONS
from specee.app.engine.schema_references import is_of_object
from specee.app.errors import AppError
from specee.app.serve import schema
from specee.app.serve.errors import ApiError, bad_request
from specee.app.settings import shown

NAMED = ("$defs", "definitions", "properties")
"""Parts of a schema that have schemas by names of the client's."""
DATA = ("enum", "const", "default", "example", "examples")
"""Parts that are no schemas."""
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


class CalledFunction(TypedDict):
    name: str
    arguments: str
    """A JSON object."""


class ToolCall(TypedDict):
    id: str
    type: str
    function: CalledFunction


@dataclass(frozen=True)
class Tools:
    """The tools of a request. `json_schema`: of the call that the answer must be, None where it need not be one."""

    given: str | None
    """JSON, for the model."""
    names: frozenset[str] = frozenset()
    json_schema: str | None = None
    one_call: bool = False

    @classmethod
    def of(cls, request: schema.ChatCompletionRequest) -> Tools:
        """Raises ApiError for a choice that cannot be kept."""
        tools, choice = request.tools or [], request.tool_choice
        chosen = choice.function.name if isinstance(choice, schema.ChosenTool) else None
        names = [tool.function.name for tool in tools]
        for i, name in enumerate(names):
            if name in names[:i]:
                where = f"tools[{i}].function.name"
                raise bad_request(f"'{where}': another tool has the name {name!r}, too", where)
        if choice is not None and choice != "none" and not tools:
            raise bad_request("'tool_choice': there are no tools", "tool_choice")
        if chosen is not None and chosen not in names:
            raise bad_request(f"'tool_choice': there is no tool {chosen!r}", "tool_choice")
        if not tools or choice == "none":
            return cls(None)
        must = choice == "required" or chosen is not None
        for i, tool in enumerate(tools):
            _check_parameters(tool, f"tools[{i}].function.parameters", must=must and chosen in (None, names[i]))
        given = json.dumps([tool.model_dump(exclude_none=True) for tool in tools])
        callable_tools = [tool for tool in tools if chosen in (None, tool.function.name)]
        return cls(
            given,
            frozenset(tool.function.name for tool in callable_tools),
            json.dumps(_schema(callable_tools)) if must else None,
            request.parallel_tool_calls is False,
        )


def _check_parameters(tool: schema.Tool, where: str, *, must: bool) -> None:
    """Raises ApiError for what is no schema of an object, and for what cannot be kept where a call is demanded."""
    parameters = tool.function.parameters
    if parameters is None:
        return
    kind = parameters.get("type", "object")
    if kind != "object":
        raise bad_request(f"'{where}': its type is {shown(kind)}, and must be 'object'", where)
    if must:
        check_schema(_of_object(parameters), where)
        if not is_of_object(parameters):
            raise bad_request(f"'{where}': it must be a schema of an object", where)


def _of_object(parameters: dict[str, Any]) -> dict[str, Any]:
    """The schema of arguments, which are an object also where it does not say so, and none where it names none."""
    if not parameters.keys() - {"type"} - ANNOTATIONS:
        return {**NO_ARGUMENTS, **parameters}
    return dict(parameters) if "$ref" in parameters else {"type": "object", **parameters}


def check_schema(given: dict[str, Any], where: str) -> None:
    """Raises ApiError for a schema that an answer cannot be kept to."""
    try:
        json_schema.check(json.dumps(given))
    except AppError as error:
        raise ApiError(400, error.title, f"'{where}': {error.message}", where) from error


def _schema(tools: list[schema.Tool]) -> dict[str, Any]:
    """The JSON schema of a call of one of the tools, with the tools' own schemas as definitions."""
    definitions: dict[str, Any] = {}
    calls = []
    for i, tool in enumerate(tools):
        name = f"tool{i}"
        definitions[name] = _moved(_of_object(tool.function.parameters or {}), f"#/$defs/{name}")
        properties = {"name": {"const": tool.function.name}, "arguments": {"$ref": f"#/$defs/{name}"}}
        required = list(properties)
        calls.append({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
    return {"anyOf": calls, "$defs": definitions}


def _moved(given: Any, place: str) -> Any:
    """A schema, or a part of it, whose references into itself find it at `place`."""
    if isinstance(given, list):
        return [_moved(one, place) for one in given]
    if not isinstance(given, dict):
        return given
    moved: dict[str, Any] = {}
    for key, value in given.items():
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            moved[key] = place + value[1:]
        elif key in NAMED and isinstance(value, dict):
            moved[key] = {name: _moved(one, place) for name, one in value.items()}
        else:
            moved[key] = value if key in DATA else _moved(value, place)
    return moved
