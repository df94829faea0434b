"""Calls of tools in the text of an answer.

Models write a call as an object with a name and arguments, as their chat templates show them: between the tags of
Hermes and Qwen (`<tool_call>`), or alone, as Llama does; gpt-oss addresses the arguments to the tool, in a channel.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from pydantic_core import from_json

from specee.app.engine.stop_sequences import StopSequences
from specee.app.serve.tools import CalledFunction, ToolCall, Tools

BEGIN, END = "<tool_call>", "</tool_call>"
FENCE = "```"
TAGS = ("<|python_tag|>", "[TOOL_CALLS]", f"{FENCE}json", FENCE)
"""What some models write before calls alone."""
ALONE = ("{", "[", *TAGS)
"""How an answer begins that is nothing but calls."""
ADDRESSED = ("to=functions.", "commentary to=functions.")
"""gpt-oss before the name of a tool, without the control tokens."""
HEADER = re.compile(r"(?:commentary)?[ \t]*(?:json|code)?[ \t\r\n]*")
"""And after it."""
BETWEEN = " \t\r\n,;[]"
"""What stands between calls alone."""
KEYS = ("name", "arguments", "parameters", "type", "id")
"""With one of these a call begins."""
FIRST_KEY = re.compile(r'\{[ \t\r\n]*(?:\Z|"([a-z]*)("|\Z))')
CUT_NUMBER = re.compile(r"\.|[eE][+-]?")
WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
DECODER = json.JSONDecoder()


class CallReader:
    """Lets the text of an answer through as soon as it can be no part of a call."""

    def __init__(self, tools: Tools) -> None:
        self.calls: list[ToolCall] = []
        """Those of the answer, after `end`."""
        self._tools = tools
        self._held = ""  # what may be a part of a call
        self._n_before = 0  # characters of it that stand before calls alone
        self._read = self._in_beginning if tools.json_schema is None else self._in_demanded_call
        self._spaces: str | None = None  # beside calls, where there is nothing else

    def add(self, text: str) -> str:
        """More text; returns what can be shown."""
        if self._tools.given is None:
            return text
        self._held += text
        return self._pass(ended=False)

    def end(self) -> str:
        """No more text; returns what was held back and is no call, such as one that was cut."""
        released = self._pass(ended=True)
        if self._tools.one_call:
            del self.calls[1:]
        return released

    def _pass(self, *, ended: bool) -> str:
        """Reads what is held, as far as it is clear what it is."""
        released = ""
        while True:
            read = self._read
            released += read(ended)
            if self._read == read:
                return released

    # ---- where in the answer: each returns what can be shown, and says what follows --------------------------------

    def _in_demanded_call(self, ended: bool) -> str:
        if ended:
            self._read = self._in_calls_alone
        return ""

    def _in_beginning(self, ended: bool) -> str:
        text = self._held.lstrip()
        if not ended and any(alone.startswith(text) for alone in ALONE):
            return ""
        tag = next((tag for tag in TAGS if text.startswith(tag)), "")
        self._n_before = len(self._held) - len(text) + len(tag)
        self._read = self._in_calls_alone if text.startswith(ALONE) else self._in_text
        return ""

    def _in_calls_alone(self, ended: bool) -> str:
        calls, rest = self._calls_in(self._held[self._n_before :])
        self.calls += calls
        if self.calls:
            self._held, self._n_before, self._spaces = rest, 0, ""
        if not ended and self._may_be_call(rest):
            return ""
        if self.calls and FENCE.startswith(rest.rstrip()):  # the end of what began with one
            if not ended:
                return ""
            if rest.rstrip() == FENCE:
                self._held = ""
        self._read = self._in_text
        return ""

    def _in_text(self, ended: bool) -> str:
        before_call = StopSequences((BEGIN, *ADDRESSED))
        released = before_call.add(self._held)
        if before_call.found and not self._held[len(released) :].startswith(BEGIN):
            self._held = self._held[len(released) :]
            self._read = self._in_addressed
        elif before_call.found:
            self._held = self._held[len(released) + len(BEGIN) :]
            self._read = self._in_tags
        elif ended:
            released, self._held = self._held, ""
        else:
            self._held = self._held[len(released) :]
        return self._without_spaces(released)

    def _in_tags(self, ended: bool) -> str:
        inner, end = min((self._held.partition(tag)[:2] for tag in (END, BEGIN)), key=lambda part: len(part[0]))
        calls, rest = self._calls_in(inner)
        if not end and not ended and (calls or self._may_be_call(rest)):
            return ""
        self._read = self._in_text
        if calls:
            self.calls += calls
            self._spaces = self._spaces or ""
            self._held = self._held[len(inner) + (len(END) if end == END else 0) :]
            # without its end, the answer may have been cut in the tag
            return "" if end != END and END.startswith(rest.strip()) else self._without_spaces(rest)
        if end == BEGIN:
            self._held = self._held[len(inner) :]
            return self._without_spaces(BEGIN + inner)
        return self._without_spaces(BEGIN)

    def _in_addressed(self, ended: bool) -> str:
        tag = next(tag for tag in ADDRESSED if self._held.startswith(tag))
        address, brace, rest = self._held[len(tag) :].partition("{")
        named = sorted(self._tools.names, key=len, reverse=True)
        name = next((name for name in named if address.startswith(name)), None)
        header = "" if name is None else address[len(name) :]
        if not brace and not ended:
            may_be = name is not None and _may_be_header(header)
            if may_be or any(one.startswith(address) for one in named):
                return ""
        if brace and name is not None and HEADER.fullmatch(header):
            try:
                arguments, end = DECODER.raw_decode(brace + rest)
            except json.JSONDecodeError as error:
                if not ended and _is_cut(error):
                    return ""
            except (ValueError, RecursionError):
                pass
            else:
                if (call := self._call({"name": name, "arguments": arguments})) is not None:
                    self.calls.append(call)
                    self._held, self._spaces = (brace + rest)[end:], self._spaces or ""
                    self._read = self._in_text
                    return ""
        self._held = self._held[len(tag) :]
        self._read = self._in_text
        return self._without_spaces(tag)

    def _without_spaces(self, text: str) -> str:
        """Nothing as long as there are only spaces beside calls."""
        if self._spaces is None or not text:
            return text
        self._spaces += text
        if not self._spaces.strip():
            return ""
        released, self._spaces = self._spaces, None
        return released

    # ---- calls ---------------------------------------------------------------------------------------------------

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

    def _may_be_call(self, text: str) -> bool:
        """Whether a text may be the beginning of a call, which is not complete."""
        if not text:
            return True
        first = FIRST_KEY.match(text)
        if first is None:
            return False
        key, is_whole = first[1] or "", bool(first[2])
        if not any(one == key if is_whole else one.startswith(key) for one in KEYS):
            return False
        try:
            DECODER.raw_decode(text)
            return False  # whole, and none
        except json.JSONDecodeError as error:
            if not _is_cut(error):
                return False
        except (ValueError, RecursionError):
            return False
        try:
            found = from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return False
        name = found.get("name", "")
        if not isinstance(name, str) or not any(one.startswith(name) for one in self._tools.names):
            return False
        return isinstance(found.get("arguments", found.get("parameters", {})), dict)

    def _call(self, found: Any) -> ToolCall | None:
        if not isinstance(found, dict):
            return None
        name, arguments = found.get("name"), found.get("arguments", found.get("parameters", {}))
        if not isinstance(name, str) or name not in self._tools.names or not isinstance(arguments, dict):
            return None
        if next(iter(found)) not in KEYS:
            return None
        try:
            text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
            text.encode()
        except ValueError:  # numbers and texts that JSON has not
            return None
        function: CalledFunction = {"name": name, "arguments": text}
        return {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def _may_be_header(text: str) -> bool:
    """Whether a text may become one."""
    bare = text.strip()
    return bool(HEADER.fullmatch(text)) or any(
        f"{channel}{form}".startswith("".join(bare.split()))
        for channel in ("", "commentary")
        for form in ("json", "code")
    )


def _is_cut(error: json.JSONDecodeError) -> bool:
    """Whether a text is not JSON only because it ends too early."""
    rest = error.doc[error.pos :]
    return (
        not rest.strip()
        or error.msg.startswith("Unterminated string")
        or (error.msg.startswith("Invalid \\u") and len(rest) < len("\\u0000"))
        or CUT_NUMBER.fullmatch(rest) is not None
        or any(one.startswith(rest) for one in WORDS)
    )
