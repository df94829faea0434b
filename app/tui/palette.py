"""The commands as the palette lists them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from textual.app import SystemCommand
from textual.binding import Binding

from specee.app.errors import AppError
from specee.app.tui import keys
from specee.app.tui.key_line import key_name

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

ALONE = {"/branch", "/export", "/persona", "/prompt", "/resume", "/search"}
"""Commands that do something useful without what may follow them."""
_NEEDS = re.compile("[A-Z]{1,}[ :]")  # the help of a command begins with what must follow it


def commands(app: ChatApp) -> Iterator[SystemCommand]:
    """All of them; one that needs something behind it is written into the prompt."""
    bound = {
        binding.action: key_name(binding.key.split(",")[0]) for binding in keys.BINDINGS if isinstance(binding, Binding)
    }
    for name, words in app.commands.help_lines().items():
        key = bound.get(f"command('{name}')") or bound.get(keys.ACTIONS.get(name, ""))
        title = f"{name} ({key})" if key else name
        if _NEEDS.match(words) and name not in ALONE:
            chat = app.session.chat
            known = chat.title if name == "/rename" and chat is not None else ""
            yield SystemCommand(title, words, partial(_begin, app, f"{name} {known}"))
        else:
            yield SystemCommand(title, words, partial(app.action_command, name))


def _begin(app: ChatApp, line: str) -> None:
    """Writes the beginning of a command into the prompt, unless that would replace what is there."""
    if app.prompt.text:
        raise AppError(
            "not now", f"{line.strip()} is written in the prompt, where a text stands; send or clear it first"
        )
    app.prompt.focus()
    app.prompt.write(line)
