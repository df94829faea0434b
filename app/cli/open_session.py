"""From options to a session with its history: a new chat, the last one, or one by its number."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from specee.app import paths
from specee.app.chat.history.store import Store
from specee.app.chat.session import Session
from specee.app.cli.shared_options import PERSONAS, chat_options, load_options
from specee.app.engine.client import start_process
from specee.app.engine.terminal_guard import SavedTerminal
from specee.app.errors import USAGE, AppError
from specee.app.options import ChatOptions, Recalled, recall

LAST = -1  # in place of a chat's number: the one last used


def open_session(
    context: click.Context,
    values: dict[str, Any],
    persona: str | None,
    chat: int | None,
    *,
    keep: bool,
    terminal: SavedTerminal | None = None,
) -> tuple[Session, ChatOptions, str | None]:
    """A session, how it is to answer, and what the user should know of it. Raises AppError.

    `terminal` is given back by the engine process if this one is killed.
    A chat that goes on keeps its own settings, except for what was typed now; config.toml is for new ones.
    """
    system = _system(context, values, persona)
    store = Store(paths.find(values["data_dir"]).history if keep else None)
    try:
        start = partial(start_process, terminal=terminal)
        if chat is None:
            return Session(load_options(values), system, start, store), chat_options(values), None
        number = _last(store) if chat == LAST else chat
        recalled = recall(store.chat(number).options)
        typed = {name: value if _typed(context, name) else None for name, value in values.items()}
        options = chat_options(typed, recalled.options)
        session = Session(load_options(_with_model_of(recalled, values, typed)), system, start, store)
        session.resume(number)
        if system is not None and (_typed(context, "system") or _typed(context, "persona")):
            session.set_system(system)
        notice = None if recalled.refused is None else f"chat {number}: {recalled.refused}"
        return session, options, notice
    except BaseException:
        store.close()
        raise


def _with_model_of(kept: Recalled, values: dict[str, Any], typed: dict[str, Any]) -> dict[str, Any]:
    """`values` with the model and the drafter of a chat, but for what was typed."""
    if typed["model"] is not None or kept.model is None:
        return values
    return {**values, "model": kept.model, "drafter": typed["drafter"] or kept.drafter}


def _system(context: click.Context, values: dict[str, Any], persona: str | None) -> str | None:
    personas: dict[str, str] = context.meta.get(PERSONAS, {})
    if persona is not None and persona not in personas:
        known = ", ".join(sorted(personas)) or "none; write them under [personas] in config.toml"
        raise AppError("unknown persona", f"{persona!r}; there are: {known}", USAGE)
    return values["system"] or (personas[persona] if persona is not None else None)


def _last(store: Store) -> int:
    chats = store.chats(1)
    if not chats:
        raise AppError("no chat to go on with", "none is kept yet", USAGE)
    return chats[0].id


def _typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE
