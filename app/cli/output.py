"""A command's result on standard output: JSON for programs, text for people."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from specee.app.errors import OK
from specee.app.formatting import to_json

Result = TypeVar("Result")


def show(result: Result, as_json: bool, as_text: Callable[[Result], str]) -> int:
    """Prints one of both, and returns the exit code. Of no text there is no line either."""
    if as_json:
        print_json(result)
    elif text := as_text(result):
        print(text)
    return OK


def print_json(content: object) -> None:
    """Prints one line of JSON, which has the exact text in every encoding."""
    line = to_json(content)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = to_json(content, ascii_only=True)
    print(line, flush=True)
