"""What is to be answered: the text of -p with its attached files, or what comes in through a pipe."""

from __future__ import annotations

import sys
from typing import Any

from specee.app.errors import USAGE, AppError


def on_a_terminal() -> bool:
    """Whether somebody sits there who can use the screen."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def read_prompt(given: str | None) -> tuple[str, str, list[Any]]:
    """The text to answer, that of the files attached to it, and which they are.

    What comes through a pipe is left as it is.
    """
    from specee.app.chat.attachments import attach

    text = given if given is not None else _piped()
    attached, files = attach(text) if given is not None else ("", [])
    if not text.strip():
        raise AppError("nothing to answer", "the prompt is empty; give -p TEXT, or text on standard input", USAGE)
    return text, attached, files


def _piped() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise AppError("no terminal", "the screen needs a terminal; for one answer give -p TEXT", USAGE)
    return sys.stdin.read()
