"""Which text `/copy` means."""

from __future__ import annotations

from collections.abc import Sequence

from specee.app.errors import USAGE, AppError
from specee.app.tui.markdown import code_blocks

HOW = "/copy, /copy 2 (the last message but one), /copy code, /copy code 1 (its first), /copy 2 code 1"


def choose(argument: str, messages: Sequence[str], answer: str) -> str:
    """The text: `messages` are all of the branch, the newest last; `answer` is the last answer. Raises AppError."""
    words = argument.split()
    text = answer
    if words and words[0] != "code":
        text = _message(_number(words.pop(0)), messages)
    if words:
        if words.pop(0) != "code" or len(words) > 1:
            raise AppError("what to copy", HOW, USAGE)
        text = _code(text, _number(words[0]) if words else None)
    if not text:
        raise AppError("nothing to copy", "there is no answer yet")
    return text


def _message(number: int, messages: Sequence[str]) -> str:
    if not 1 <= number <= len(messages):
        raise AppError("no such message", f"this conversation has {len(messages)}, counted from its end")
    return messages[-number]


def _code(text: str, number: int | None) -> str:
    blocks = code_blocks(text)
    if not blocks or (number is not None and not 1 <= number <= len(blocks)):
        raise AppError("no such code block", f"that message has {len(blocks)}")
    return blocks[-1 if number is None else number - 1]


def _number(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise AppError("what to copy", HOW, USAGE) from None
