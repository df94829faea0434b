"""What to do about a chat that does not fit into the context window: only what can help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from specee.app.engine.backend import Backend
from specee.app.engine.protocol import Message
from specee.app.errors import PROMPT_TOO_LONG, AppError

LONGEST_TOKEN = 256
"""Characters that a token may have on average: millions of them need not be made tokens to see that they are too many,
which takes seconds in which nothing else is answered."""


def prompt_too_long(
    backend: Backend, messages: Sequence[Message], tools: str | None, variables: Mapping[str, Any], why: str, n: int
) -> AppError:
    """`why`: how long it is, and what the window holds; `n`: its tokens, at least."""
    too_long, to_do = _unchangeable(backend, messages, tools, variables)
    parts = (why, f"{too_long} alone takes more" if too_long else None)
    return AppError(
        "prompt too long",
        f"{'; '.join(filter(None, parts))}; {shorter_or_larger(backend, messages, n, to_do)}",
        PROMPT_TOO_LONG,
    )


def shorter_or_larger(backend: Backend, messages: Sequence[Message], n: int, to_do: str | None = None) -> str:
    """`to_do`: instead of shortening the last message, where that does not do."""
    info = backend.info
    new = "begin a new chat" if to_do is None and any(message.role == "assistant" for message in messages) else None
    larger = info.larger_window if not info.trained_ctx or n < info.trained_ctx else None
    return ", or ".join(filter(None, (to_do or "shorten it", new, larger)))


def _unchangeable(
    backend: Backend, messages: Sequence[Message], tools: str | None, variables: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    """What of the prompt fills the window whatever is asked, and what to do about that."""
    question = Message("user", "")
    system = [message for message in messages if message.role == "system"]
    for what, chat, given, to_do in (
        ("the model's chat template", [question], None, "take another model"),
        ("the list of tools", [question], tools, "give fewer tools"),
        ("the system message", [*system, question], tools, "shorten the system message"),
    ):
        with suppress(AppError):
            text = backend.format(chat, given, variables)
            n_ctx = backend.engine.n_ctx
            if len(text) > LONGEST_TOKEN * n_ctx or len(backend.tokenize(text, bos=True)) >= n_ctx:
                return what, to_do
    return None, None
