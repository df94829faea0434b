"""The log of llama.cpp, on standard error: where it says why it refuses a model."""

from __future__ import annotations

import re
import sys
from typing import Any

ERROR = 4  # GGML_LOG_LEVEL_ERROR

_PLACE = re.compile(r"(?:\w+: |error loading model(?: \w+)?: )+")  # who says it, again and again
_errors: list[str] = []  # of the call under way
_callback: Any = None  # the library keeps its address only


def listen(llama: Any) -> None:
    """Writes the log from now on; the bindings' own writer fails at texts that are not UTF-8."""
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
    """What the first error since `listen` was, without control characters; None when there was none."""
    for line in _errors:
        if said := _PLACE.sub("", line, count=1).strip():
            return "".join(sign if sign.isprintable() else "�" for sign in said)
    return None
