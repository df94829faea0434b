"""Tools that a model may call, and its calls in the text of an answer.

Models write a call as an object with a name and arguments, as their chat templates show them: between the tags of
Hermes and Qwen (`<tool_call>`), or alone, as Llama does.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json
from typing_extensions import TypedDict

from specee.app.engine.stop_sequences import StopSequences
from specee.app.serve import schema
from specee.app.serve.errors import bad_request
from specee.app.serve.schema import as_json

BEGIN, END = "<tool_call>", "</tool_call>"
DEFINITIONS = ("$defs", "definitions")
TAGS = ("<|python_tag|>", "[TOOL_CALLS]", "```json", "```")
"""What some models write before calls alone."""
ALONE = ("{", "[", *TAGS)
"""How an answer begins that is nothing but calls."""


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
        if len(set(names)) < len(names):
            raise bad_request("'tools': two have the same name", "tools")
        if choice is not None and choice != "none" and not tools:
            raise bad_request("'tool_choice': there are no tools", "tool_choice")
        if chosen is not None and chosen not in names:
            raise bad_request(f"'tool_choice': there is no tool {chosen!r}", "tool_choice")
        if not tools or choice == "none":
            return cls(None)
        must = choice == "required" or chosen is not None
        for i, tool in enumerate(tools):
            if tool.function.strict and not must:
                where = f"tools[{i}].function.strict"
                raise bad_request(f"'{where}': only where 'tool_choice' demands a call", where)
        given = as_json([tool.model_dump(exclude_none=True) for tool in tools], "tools")
        callable_tools = [tool for tool in tools if chosen in (None, tool.function.name)]
        return cls(
            given,
            frozenset(tool.function.name for tool in callable_tools),
            as_json(_schema(callable_tools), "tools") if must else None,
            request.parallel_tool_calls is False,
        )


class CallReader:
    """Lets the text of an answer through, except for what may be calls."""

    def __init__(self, tools: Tools) -> None:
        self.calls: list[ToolCall] = []
        """Those of the answer, after `end`."""
        self._tools = tools
        self._before_calls = StopSequences((BEGIN,))
        self._whole = ""
        self._n_passed = self._n_released = 0  # characters: seen by _before_calls, given out
        self._is_calls_alone: bool | None = None  # as long as that is open
        if tools.json_schema is not None:
            self._is_calls_alone = True

    def add(self, text: str) -> str:
        """More text; returns what can be shown."""
        if self._tools.given is None:
            return text
        self._whole += text
        if self._is_calls_alone is None:
            begins = self._whole.lstrip()
            if not any(alone.startswith(begins) for alone in ALONE):
                self._is_calls_alone = begins.startswith(ALONE)
        if self._is_calls_alone is not False:
            return ""
        new, self._n_passed = self._whole[self._n_passed :], len(self._whole)
        released = self._before_calls.add(new)
        self._n_released += len(released)
        return released

    def end(self) -> str:
        """No more text; returns what was held back and is no call."""
        self.calls = self._read()
        shown = len(self._whole)
        if self.calls:
            shown = max(self._whole.find(BEGIN), 0)
        return self._whole[self._n_released : max(shown, self._n_released)]

    def _read(self) -> list[ToolCall]:
        if BEGIN in self._whole:
            parts = [part.partition(END)[0] for part in self._whole.split(BEGIN)[1:]]
        else:
            text = self._whole.strip()
            tag = next((tag for tag in TAGS if text.startswith(tag)), "")
            parts = [text.removeprefix(tag).removesuffix("```")]
        calls = [call for part in parts for call in self._calls_in(part)]
        return calls[:1] if self._tools.one_call else calls

    def _calls_in(self, text: str) -> list[ToolCall]:
        try:
            found = from_json(text.strip())
        except ValueError:
            return []
        calls = [self._call(one) for one in (found if isinstance(found, list) else [found])]
        return [call for call in calls if call is not None]

    def _call(self, found: Any) -> ToolCall | None:
        if not isinstance(found, dict):
            return None
        name, arguments = found.get("name"), found.get("arguments", found.get("parameters", {}))
        if not isinstance(name, str) or name not in self._tools.names or not isinstance(arguments, dict):
            return None
        function: CalledFunction = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        return {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def _schema(tools: list[schema.Tool]) -> dict[str, Any]:
    """The JSON schema of a call of one of the tools, with the definitions of all tools' schemas at its top."""
    definitions: dict[str, Any] = {}
    calls = []
    for i, tool in enumerate(tools):
        name = f"tool{i}"
        of_tool = dict(tool.function.parameters or {"type": "object"})
        for key in DEFINITIONS:
            given = of_tool.pop(key, {})
            if not isinstance(given, dict):
                raise bad_request(f"'tools[{i}].function.parameters.{key}': it must be an object", "tools")
            for inner, one in given.items():
                definitions[f"{name}-{inner}"] = _renamed(one, name)
        definitions[name] = _renamed(of_tool, name)
        properties = {"name": {"const": tool.function.name}, "arguments": {"$ref": f"#/$defs/{name}"}}
        required = list(properties)
        calls.append({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
    return {"anyOf": calls, "$defs": definitions}


def _renamed(value: Any, name: str) -> Any:
    """A part of a schema whose own name is now `name`, with its references to itself and to its definitions."""
    if isinstance(value, list):
        return [_renamed(one, name) for one in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _renamed(one, name) for key, one in value.items()}
    reference = renamed.get("$ref")
    if reference == "#":
        renamed["$ref"] = f"#/$defs/{name}"
    for key in DEFINITIONS:
        if isinstance(reference, str) and reference.startswith(f"#/{key}/"):
            renamed["$ref"] = f"#/$defs/{name}-{reference.removeprefix(f'#/{key}/')}"
    return renamed
