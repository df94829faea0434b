"""Calls of tools in the text of an answer.

Models write a call as an object with a name and arguments, as their chat templates show them: between the tags of
Hermes and Qwen (`<tool_call>`), or alone, as Llama does.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from specee.app.engine.stop_sequences import StopSequences
from specee.app.serve.tools import CalledFunction, ToolCall, Tools

BEGIN, END = "<tool_call>", "</tool_call>"
TAGS = ("<|python_tag|>", "[TOOL_CALLS]", "```json", "```")
"""What some models write before calls alone."""
ALONE = ("{", "[", *TAGS)
"""How an answer begins that is nothing but calls."""
BETWEEN = " \t\r\n,;[]"
"""What stands between calls alone."""
DECODER = json.JSONDecoder()


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
        """No more text; returns what was held back and is no call, such as one that was cut."""
        calls, rest = self._read()
        self.calls = calls[:1] if self._tools.one_call else calls
        if not calls:
            return self._whole[self._n_released :]
        return rest if rest.strip() else ""

    def _read(self) -> tuple[list[ToolCall], str]:
        """The calls, and the text that is none and was not given out."""
        if self._tools.given is None:
            return [], ""
        begin = self._whole.find(BEGIN)
        if begin < 0 and self._is_calls_alone is False:
            return [], ""
        if begin < 0:
            text = self._whole.lstrip()
            tag = next((tag for tag in TAGS if text.startswith(tag)), "")
            alone, rest = self._calls_in(text.removeprefix(tag))
            return alone, "" if rest.strip() == "```" else rest
        calls: list[ToolCall] = []
        rest = self._whole[self._n_released : begin]
        for part in self._whole[begin + len(BEGIN) :].split(BEGIN):
            inner, end, after = part.partition(END)
            found, left = self._calls_in(inner)
            calls += found
            if not found:
                rest += f"{BEGIN}{inner}{end}{after}"
            elif end or not END.startswith(left.strip()):  # else the answer was cut in the tag
                rest += left + after
        return calls, rest

    def _calls_in(self, text: str) -> tuple[list[ToolCall], str]:
        """The calls that a text consists of, and its rest from the first that is none."""
        calls: list[ToolCall] = []
        rest = text.lstrip(BETWEEN)
        while rest:
            try:
                found, end = DECODER.raw_decode(rest)
            except (ValueError, RecursionError):
                break
            call = self._call(found)
            if call is None:
                break
            calls.append(call)
            rest = rest[end:].lstrip(BETWEEN)
        return calls, rest

    def _call(self, found: Any) -> ToolCall | None:
        if not isinstance(found, dict):
            return None
        name, arguments = found.get("name"), found.get("arguments", found.get("parameters", {}))
        if not isinstance(name, str) or name not in self._tools.names or not isinstance(arguments, dict):
            return None
        try:
            text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
            text.encode()
        except ValueError:  # numbers and texts that JSON has not
            return None
        function: CalledFunction = {"name": name, "arguments": text}
        return {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}
