"""`specee-chat history`: kept chats on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from specee.app import output_file, paths, settings, training_data
from specee.app.chat.history import export as form
from specee.app.cli import tables
from specee.app.cli.command import Group, run
from specee.app.cli.confirm import confirm
from specee.app.cli.option import Setting, option
from specee.app.cli.output import print_json, show
from specee.app.cli.shared_options import DATA_DIR, JSON
from specee.app.errors import OK, USAGE, AppError
from specee.app.formatting import to_json

if TYPE_CHECKING:
    from specee.app.chat.history.records import Chat
    from specee.app.chat.history.store import Store

_HERE: list[click.Parameter] = [DATA_DIR, JSON]
_limit = option("--limit", type=Setting(settings.Count), metavar="N", help="Only the last N chats.", otherwise="all")


@click.group(cls=Group, params=list(_HERE), invoke_without_command=True)
@_limit
@click.pass_context
def history(context: click.Context, /, **values: Any) -> int:
    """List, search, export and delete chats that were kept.

    \b
    specee-chat history                      all chats, the last one first
    specee-chat history search sky blue      those where these words occur
    specee-chat history show 12              chat 12 as Markdown
    specee-chat --resume 12                  go on with chat 12
    """
    return OK if context.invoked_subcommand is not None else int(run(list_chats, context))


@contextmanager
def _store(values: dict[str, Any], *, to_read: bool = True) -> Iterator[Store]:
    from specee.app.chat.history.store import Store  # SQLite is not needed for --help

    store = Store(paths.find(values["data_dir"]).history, to_read=to_read, otherwise="")
    try:
        yield store
    finally:
        store.close()


@history.command("list", params=list(_HERE))
@_limit
def list_chats(limit: int | None, as_json: bool, **values: Any) -> int:
    """List all chats, the last one first.

    \b
    specee-chat history list --limit 10
    """
    with _store(values) as store:
        chats = store.chats(limit or -1)
    if as_json:
        print_json([form.chat_object(chat) for chat in chats])
    elif chats:
        print(_listed(chats))
    else:
        print("no chats are kept yet", file=sys.stderr)
    return OK


def _listed(chats: Sequence[Chat]) -> str:
    columns = [
        tables.Column("ID", right=True),
        tables.Column("LAST USED"),
        tables.Column("TURNS", right=True),
        tables.Column("TITLE", rigid=False),
    ]
    rows = [
        (str(chat.id), datetime.fromtimestamp(chat.updated).strftime("%Y-%m-%d %H:%M"), str(chat.turns), chat.title)
        for chat in chats
    ]
    return tables.table(columns, rows)


_with_thoughts = option("--with-thoughts", is_flag=True, help="With what the model thought before its answers.")


@history.command("show", params=list(_HERE))
@click.argument("chat", type=Setting(settings.ChatId), metavar="ID")
@_with_thoughts
def show_chat(chat: int, with_thoughts: bool, as_json: bool, **values: Any) -> int:
    """Print one chat as Markdown.

    \b
    specee-chat history show 12
    """
    _print(_exported(values, chat, as_json, with_thoughts))
    return OK


@history.command("search", params=list(_HERE))
@click.argument("words", nargs=-1, required=True, type=Setting(settings.Text))
@option("--limit", type=Setting(settings.Count), default=50, metavar="N", help="At most N places.", otherwise=50)
def search(words: tuple[str, ...], limit: int, as_json: bool, **values: Any) -> int:
    """Find the places where all these words occur.

    A part of a word is enough, in capitals or not.

    \b
    specee-chat history search sky blu
    specee-chat history search C++
    """
    from specee.app.chat.history.search import words_in

    text = " ".join(words)
    if not words_in(text):
        raise AppError("nothing to search for", "the words are empty; specee-chat history lists all chats", USAGE)
    with _store(values) as store:
        hits = store.search(text, limit)
    if as_json:
        names = ("chat", "title", "turn", "role", "excerpt")
        print_json([{name: getattr(hit, name) for name in names} for hit in hits])
    elif hits:
        columns = [tables.Column("ID", right=True), tables.Column("WHO"), tables.Column("TEXT", rigid=False)]
        rows = [(str(hit.chat), form.NAMES[hit.role], " ".join(hit.excerpt.split())) for hit in hits]
        print(tables.table(columns, rows))
    else:
        print("nothing found", file=sys.stderr)
    return OK


@history.command("export", params=list(_HERE))
@click.argument("chat", type=Setting(settings.ChatId), metavar="ID")
@option(
    "--output",
    type=Setting(settings.FileName),
    metavar="FILE",
    help="Write it to FILE, which must be new.",
    otherwise="standard output",
)
@_with_thoughts
def export(chat: int, output: str | None, with_thoughts: bool, as_json: bool, **values: Any) -> int:
    """Write one chat to a file.

    As Markdown, or with --json all of it: branches, figures, and the layer after which each token stopped.

    \b
    specee-chat history export 12 --output sky.md
    """
    content = _exported(values, chat, as_json, with_thoughts)
    if output is None:
        _print(content)
    else:
        output_file.write(output, content if isinstance(content, str) else f"{to_json(content)}\n")
    return OK


@history.command("rm", params=list(_HERE))
@click.argument("chats", type=Setting(settings.ChatId), nargs=-1, required=True, metavar="ID...")
@option("--yes", is_flag=True, default=None, help="Do not ask.")
def rm(chats: tuple[int, ...], yes: bool | None, as_json: bool, **values: Any) -> int:
    """Delete chats for good, after a question.

    \b
    specee-chat history rm 12 13
    specee-chat history rm 12 --yes          in a script
    """
    with _store(values, to_read=False) as store:
        found = [store.chat(chat) for chat in dict.fromkeys(chats)]
        confirm(f"Delete {', '.join(repr(chat.title) for chat in found)}?", yes)
        for chat in found:
            store.delete_chat(chat.id)
    training_data.forget_chats(paths.find(values["data_dir"]).cache)
    return show({"removed": [chat.id for chat in found]}, as_json, lambda result: "")


def _exported(values: dict[str, Any], chat_id: int, as_json: bool, thoughts: bool) -> str | dict[str, Any]:
    """As Markdown, or what JSON has."""
    with _store(values) as store:
        chat, branch = store.chat(chat_id), store.branch(chat_id)
        if as_json:
            return form.tree_object(chat, store.tree(chat_id), branch, thoughts=thoughts)
        return form.markdown(chat, branch, thoughts=thoughts)


def _print(exported: str | dict[str, Any]) -> None:
    if isinstance(exported, str):
        print(exported, end="")
    else:
        print_json(exported)
