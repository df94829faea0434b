"""The log of llama.cpp, on standard error: where it says why it refuses a model."""

from __future__ import annotations

import re
import sys
from typing import Any

ERROR = 4  # GGML_LOG_LEVEL_ERROR
MAX_SHOWN = 300  # characters

_PLACE = re.compile(r"(?:\w+: |error loading model(?: \w+)?: |failed to initialize the context: )+")  # who says it
_NOTHING_NEW = re.compile(r"(?:failed|unable) to (?:load|read|open)\b")  # that it failed, not why
_MEMORY = re.compile(r"allocat|memory|bad_alloc", re.IGNORECASE)
_errors: list[str] = []  # of the call under way
_callback: Any = None  # the library keeps its address only


def listen(llama: Any) -> None:
    """Writes the log from now on, and forgets earlier errors; the bindings' own writer fails at texts that are not
    UTF-8."""
    global _callback

    def write(level: int, text: bytes, _: object) -> None:
        line = text.decode("utf-8", "replace")
        if level == ERROR:
            _errors.append(line)
        print(line, end="", flush=True, file=sys.stderr)

    _errors.clear()
    if _callback is None:
        _callback = llama.llama_log_callback(write)
    llama.llama_log_set(_callback, None)


def reason() -> str | None:
    """Why llama.cpp refused what was asked of it since `listen`: its last error that says more than that it failed, on
    one line and without control characters; None when there was none."""
    told = [line for error in _errors if (line := _PLACE.sub("", error, count=1).strip())]
    best = next((line for line in reversed(told) if not _NOTHING_NEW.match(line)), told[0] if told else None)
    return None if best is None else "".join(sign if sign.isprintable() else "�" for sign in best[:MAX_SHOWN])


def is_of_memory(reason: str | None) -> bool:
    """Whether there was no memory, as far as one can tell."""
    return reason is None or _MEMORY.search(reason) is not None
