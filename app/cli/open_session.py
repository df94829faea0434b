"""From options to a session with its history: a new chat, the last one, or one by its number."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from specee.app import paths
from specee.app.chat import kept_model
from specee.app.chat.history.store import Store
from specee.app.chat.session import Session
from specee.app.cli import config
from specee.app.cli.shared_options import PERSONAS, chat_options, load_options
from specee.app.engine.client import start_process
from specee.app.engine.draft_file import check_drafter
from specee.app.engine.terminal_guard import SavedTerminal
from specee.app.errors import USAGE, AppError
from specee.app.options import ChatOptions, LoadOptions, Recalled, recall
from specee.models import resolve
from specee.models.errors import ModelError

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
    given = config.typed_values(context)
    try:
        start = partial(start_process, terminal=terminal)
        if chat is None:
            return Session(load_options(values), system, start, store, given), chat_options(values), None
        number = _last(store) if chat == LAST else chat
        recalled = recall(store.chat(number).options)
        typed = {name: value if _typed(context, name) else None for name, value in values.items()}
        options = chat_options(typed, recalled.options)
        answering, lost = _with_model_of(recalled, values, typed, "/model" if terminal else "--model")
        session = Session(load_options(answering), system, start, store, given)
        session.resume(number)
        if system is not None and (_typed(context, "system") or _typed(context, "persona")):
            session.set_system(system)
        known = [line for line in (recalled.refused, *lost) if line is not None]
        return session, options, f"chat {number}: {'; '.join(known)}" if known else None
    except BaseException:
        store.close()
        raise


def _with_model_of(
    kept: Recalled, values: dict[str, Any], typed: dict[str, Any], choose: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`values` with the model and the drafter of a chat, but for what was typed; and a line for one that is gone.

    `choose` is how the user takes another one from where the line is read.
    A model that can be fetched is not gone: whoever loads it asks, or says how.
    """
    if typed["model"] is not None or kept.model is None:
        return values, ()
    error = kept_model.lost(kept.model)
    if error is not None and not isinstance(error, resolve.NotHere):
        other = resolve.stable_name(values["model"])
        return values, (f"{kept.model} cannot answer it any more ({error.title}); {other} does now, or {choose} NAME",)
    drafter = typed["drafter"] or kept.drafter
    if typed["drafter"] is None and drafter is not None:
        try:
            check_drafter(LoadOptions(model=kept.model, drafter=drafter))
        except (ModelError, AppError) as error:
            if not isinstance(error, resolve.NotHere) or error.wanted.name != kept.model:
                line = f"{drafter} cannot draft for it any more ({error.title}); it goes on without"
                return {**values, "model": kept.model, "drafter": None}, (line,)
    return {**values, "model": kept.model, "drafter": drafter}, ()


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
