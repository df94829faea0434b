"""`specee-chat history`: kept chats on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from specee.app import paths
from specee.app.chat.history import export as form
from specee.app.cli.shared_options import to_json
from specee.app.errors import OK

if TYPE_CHECKING:
    from specee.app.chat.history.store import Store

_json = click.option("--json", "as_object", is_flag=True, help="Print JSON.")


@click.group()
@click.option("--data-dir", metavar="DIR", help="Look in this folder.")
@click.pass_context
def history(context: click.Context, data_dir: str | None) -> None:
    """Chats that were kept.

    \b
    specee-chat history search sky blue      find words in all chats
    specee-chat --resume 12                  go on with chat 12
    specee-chat -c -p "And at night?"        go on with the last one
    """
    before = context.parent.obj if context.parent is not None and context.parent.obj else {}
    context.obj = data_dir or before.get("data_dir")


@contextmanager
def _store() -> Iterator[Store]:
    from specee.app.chat.history.store import Store  # SQLite is not needed for --help

    store = Store(paths.find(click.get_current_context().obj).history)
    try:
        yield store
    finally:
        store.close()


@history.command("list")
@click.option("--limit", type=click.IntRange(1), default=None, metavar="N", help="Only the last N chats.")
@_json
def list_chats(limit: int | None, as_object: bool) -> int:
    """All chats, the last one first."""
    with _store() as store:
        chats = store.chats(limit or -1)
    if as_object:
        click.echo(to_json([form.chat_object(chat) for chat in chats]))
        return OK
    for chat in chats:
        when = datetime.fromtimestamp(chat.updated).strftime("%Y-%m-%d %H:%M")
        click.echo(f"{chat.id:5}  {when}  {chat.turns:4} turns  {chat.title}")
    return OK


@history.command()
@click.argument("chat", type=int)
@_json
def show(chat: int, as_object: bool) -> int:
    """One chat, as Markdown."""
    click.echo(_exported(chat, as_object), nl=as_object)
    return OK


@history.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N")
@_json
def search(words: tuple[str, ...], limit: int, as_object: bool) -> int:
    """Turns with all these words; the last word may be only begun."""
    with _store() as store:
        hits = store.search(" ".join(words), limit)
    if as_object:
        names = ("chat", "title", "turn", "role", "excerpt")
        click.echo(to_json([{name: getattr(hit, name) for name in names} for hit in hits]))
        return OK
    for hit in hits:
        click.echo(f"{hit.chat:5}  {form.NAMES[hit.role]:5}  {' '.join(hit.excerpt.split())}")
    return OK


@history.command()
@click.argument("chat", type=int)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it there.")
@click.option("--json", "as_object", is_flag=True, help="All branches and figures, as JSON instead of Markdown.")
def export(chat: int, output: Path | None, as_object: bool) -> int:
    """Write a chat to a file or to standard output."""
    text = _exported(chat, as_object) + ("\n" if as_object else "")
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
    return OK


@history.command()
@click.argument("chats", type=int, nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
def rm(chats: tuple[int, ...], yes: bool, as_object: bool) -> int:
    """Delete chats for good."""
    with _store() as store:
        found = [store.chat(chat) for chat in chats]
        if not yes and sys.stdin.isatty():
            click.confirm(f"Delete {', '.join(repr(chat.title) for chat in found)}?", abort=True, err=True)
        for chat in found:
            store.delete_chat(chat.id)
    if as_object:
        click.echo(to_json({"removed": list(chats)}))
    return OK


def _exported(chat_id: int, as_object: bool) -> str:
    with _store() as store:
        chat, path = store.chat(chat_id), store.branch(chat_id)
        if as_object:
            return to_json(form.tree_object(chat, store.tree(chat_id), path))
        return form.markdown(chat, path)
