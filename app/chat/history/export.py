"""A chat as Markdown to read, or as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from specee.app.chat.history.records import Chat, Turn
from specee.app.formatting import thought_title, visible

NAMES = {"user": "You", "assistant": "Model"}


def markdown(chat: Chat, branch: Sequence[Turn], *, thoughts: bool = False) -> str:
    """The branch in use; control characters in it are visible. `thoughts`: with what the model thought."""
    parts = [f"# {chat.title}"]
    if chat.system:
        parts.append(f"*System: {chat.system}*")
    for turn in branch:
        if turn.cut is not None:
            parts.append(f"*What stands above is not sent any more.{' Summary: ' + turn.cut if turn.cut else ''}*")
        state = "" if turn.state == "complete" else f" ({turn.state})"
        parts.append(f"## {NAMES[turn.role]}{state}")
        if thoughts and turn.thought:
            parts += [f"*{thought_title(turn.thought_seconds)}:*", _quoted(turn.thought)]
        parts.append(turn.sent)
    return visible("\n\n".join(parts) + "\n")


def chat_object(chat: Chat) -> dict[str, Any]:
    """A chat without its turns."""
    return {
        "id": chat.id,
        "title": chat.title,
        "created": iso(chat.created),
        "updated": iso(chat.updated),
        "turns": chat.turns,
        "system": chat.system,
        "options": chat.options,
    }


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().split("\n"))


def tree_object(chat: Chat, turns: Sequence[Turn], branch: Sequence[Turn], *, thoughts: bool = False) -> dict[str, Any]:
    """A chat with all its branches; `branch` has the ids of the turns in use. `thoughts`: with those of the model."""
    return {
        **chat_object(chat),
        "branch": [turn.id for turn in branch],
        "turns": [
            {
                "id": turn.id,
                "parent": turn.parent,
                "role": turn.role,
                "content": turn.content,
                "attached": turn.attached,
                **({"thought": turn.thought, "thought_seconds": turn.thought_seconds} if thoughts else {}),
                "state": turn.state,
                "created": iso(turn.created),
                "cut": turn.cut,
                "stats": turn.stats,
                "exit_layers": [token.layer for token in turn.tokens],
                "drafters": [token.drafter for token in turn.tokens],
            }
            for turn in turns
        ],
    }


def iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
