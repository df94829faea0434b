"""Which text `/copy` means."""

from __future__ import annotations

from collections.abc import Sequence

from specee.app.chat.markdown_source import code_blocks
from specee.app.errors import USAGE, AppError
from specee.app.settings import Count, read

USES = (
    "/copy copies the last answer, /copy 2 the message before it, /copy code the last code block of the answer, "
    "/copy code 1 its first one, /copy 2 code 1 the first one of the message before it"
)


def text_to_copy(argument: str, messages: Sequence[str], answer: str) -> str:
    """The text: `messages` are all of the branch, the newest last; `answer` is the last answer. Raises AppError."""
    parts = argument.split()
    text = answer
    if parts and parts[0] != "code":
        text = _message(_number(parts.pop(0)), messages)
    if parts:
        if parts.pop(0) != "code" or len(parts) > 1:
            raise AppError("cannot copy that", USES, USAGE)
        text = _code(text, _number(parts[0]) if parts else None)
    if not text:
        raise AppError("nothing to copy", "there is no answer yet")
    return text


def _message(number: int, messages: Sequence[str]) -> str:
    if not 1 <= number <= len(messages):
        raise AppError("no such message", f"this chat has {len(messages)}; 1 is the last one")
    return messages[-number]


def _code(text: str, number: int | None) -> str:
    blocks = code_blocks(text)
    if not blocks:
        raise AppError("no such code block", "that message has none")
    if number is not None and not 1 <= number <= len(blocks):
        raise AppError("no such code block", f"that message has {len(blocks)}; 1 is the first one")
    return blocks[-1 if number is None else number - 1]


def _number(text: str) -> int:
    try:
        return int(read(Count, text))
    except ValueError:
        raise AppError("cannot copy that", USES, USAGE) from None
