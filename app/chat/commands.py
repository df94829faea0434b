"""The slash commands that every front end has. The first line of each docstring is its help."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from inspect import isawaitable, signature
from typing import Protocol

from specee.app import output_file
from specee.app.chat import kept_model, parameters
from specee.app.chat.history import export
from specee.app.chat.saved_texts import SavedTexts
from specee.app.chat.session import Session
from specee.app.chat.setting_commands import SettingCommands
from specee.app.errors import USAGE, AppError
from specee.app.formatting import to_json
from specee.app.options import POLICIES, ChatOptions, PolicyChoice, parse_threshold
from specee.app.settings import ChatId, ContextTokens, Count, Text, check

WITH_THOUGHTS = "--with-thoughts"
_COMMAND = re.compile(r"/(\w*)(?!\S)")


def is_command(text: str) -> bool:
    """Whether a text is meant as a command: a word after a slash. A path is a question, as is what follows a space."""
    return _COMMAND.match(text) is not None


def as_typed(question: str) -> str:
    """A question as it is typed: with a space before it if it would be a command."""
    return f" {question}" if is_command(question) else question


class FrontEnd(Protocol):
    """What commands need of the program that shows a chat."""

    session: Session
    options: ChatOptions
    known_models: dict[str, str]
    """What `/model` takes, as far as it is known, each with a few words about it."""

    texts: SavedTexts

    @property
    def commands(self) -> ChatCommands:
        """Its commands."""

    def require_idle(self) -> None:
        """Raises AppError while the session loads or answers."""

    def show_chat(self) -> None:
        """Shows the branch in use, in place of what was shown."""

    def show_notice(self, text: str, *, error: bool = False) -> None:
        """Shows a message from the program."""

    def write_prompt(self, text: str) -> None:
        """Writes a text where the user can change and send it."""

    def switch_model(self, name: str) -> None:
        """Another model answers."""

    def set_threshold(self, threshold: float | None) -> None:
        """Sets the threshold of the next answers."""

    def load_changed(self) -> None:
        """Loads what the session was told to; where that cannot be, what was loaded before stays in use."""


class ChatCommands(SettingCommands):
    """The commands of one front end. A method `do_name` is `/name`; it raises AppError for what cannot be done.

    What follows the name is its argument; one that takes none is not run with any.
    """

    def __init__(self, front: FrontEnd) -> None:
        self._front = front

    @classmethod
    def help_lines(cls) -> dict[str, str]:
        """The help of each command, by its name."""
        names = sorted(name for name in dir(cls) if name.startswith("do_"))
        return {f"/{name[3:]}": (getattr(cls, name).__doc__ or "").partition("\n")[0] for name in names}

    def completions(self, text: str) -> dict[str, str]:
        """The lines that what is written may become, each with its help: commands, and what may follow some of them."""
        found = {name: words for name, words in self.help_lines().items() if name.startswith(text)}
        for command, arguments in () if found else self.arguments().items():
            if text.startswith(f"{command} "):
                lines = {f"{command} {name}": words for name, words in arguments().items()}
                return {line: words for line, words in lines.items() if line.startswith(text) and line != text}
        return found

    def arguments(self) -> dict[str, Callable[[], Mapping[str, str]]]:
        """What may follow a command, each with its help; a longer command stands before one that it begins with."""
        front = self._front
        return super().arguments() | {
            "/model": lambda: front.known_models,
            "/pull": lambda: front.known_models,
            "/policy": lambda: dict.fromkeys(POLICIES, ""),
        }

    async def run(self, line: str) -> None:
        """Runs a command line. Raises AppError."""
        if isawaitable(waiting := self.start(line)):
            await waiting

    def start(self, line: str) -> Awaitable[None] | None:
        """Runs a command line; what it gives, if anything, must be waited for. Raises AppError."""
        found = _COMMAND.match(line)
        name = found[1] if found is not None else ""
        command: Callable[..., Awaitable[None] | None] | None = getattr(self, f"do_{name}", None)
        if command is None:
            raise AppError(
                f"there is no command /{name}", "/help lists them; a space before the / makes it a question", USAGE
            )
        argument = line[len(name) + 1 :].strip()
        if signature(command).parameters:
            return command(argument)
        if argument:
            why = f"nothing can follow /{name}; a space before the / makes it a question"
            raise AppError(f"/{name} takes no argument", why, USAGE)
        return command()

    # ---- chats -----------------------------------------------------------------------------------------------------

    def do_new(self) -> None:
        """begin a new chat"""
        self._front.require_idle()
        self._front.session.new()
        self._front.show_chat()
        self._front.show_notice("a new chat")

    def resume(self, argument: str) -> None:
        """Goes on with the chat of this number. Raises AppError."""
        front = self._front
        front.require_idle()
        kept = front.session.resume(check(ChatId, "chat", argument))
        front.options = kept.options
        front.show_chat()
        if kept.refused is not None:
            front.show_notice(f"chat {argument}: {kept.refused}", error=True)
        if kept.model is not None and kept.model != front.session.model:
            front.show_notice(kept_model.on_screen(kept.model, front.session.model))

    def do_rename(self, argument: str) -> None:
        """TITLE: what this chat is called in the list of chats"""
        title = " ".join(check(Text, "title", argument).split())
        if not title:
            raise AppError("no title given", "/rename takes one", USAGE)
        self._front.session.rename(title)
        self._front.show_notice(f"this chat is called {title} now")

    def do_export(self, argument: str) -> None:
        """FILE.md or FILE.json: write this chat to a file; --with-thoughts after it: with what the model thought"""
        session = self._front.session
        if session.chat is None:
            raise AppError("nothing to export", "this chat is empty")
        name = argument.removesuffix(WITH_THOUGHTS).strip()
        thoughts, name = name != argument, name or f"chat-{session.chat.id}.md"
        if name.endswith(".json"):
            tree = session.store.tree(session.chat.id)
            text = to_json(export.tree_object(session.chat, tree, session.branch, thoughts=thoughts))
        else:
            text = export.markdown(session.chat, session.branch, thoughts=thoughts)
        self._front.show_notice(f"written to {output_file.write(name, text)}")

    # ---- turns -----------------------------------------------------------------------------------------------------

    def do_branch(self, argument: str) -> None:
        """NUMBER: go to another version of a question or answer (/edit and /retry make them)"""
        self._front.require_idle()
        session = self._front.session
        for turn in reversed(session.branch):
            if turn.siblings > 1:
                siblings = session.store.siblings(turn.id)
                wanted = check(Count, "branch", argument) if argument else turn.place % turn.siblings + 1
                if wanted > len(siblings):
                    raise AppError("no such branch", f"there are {len(siblings)}", USAGE)
                session.switch_branch(siblings[wanted - 1])
                self._front.show_chat()
                return
        raise AppError("no branches", "/retry and /edit make them")

    # ---- how it answers --------------------------------------------------------------------------------------------

    def do_policy(self, argument: str) -> None:
        """NAME: auto, chain, tree (draft tokens), exact (skips layers), pipelined, dense: same text; or specee"""
        choice = PolicyChoice.parse(argument or "auto")
        if self._front.session.info is not None:
            self._front.session.info.check(choice)
        self._front.options = replace(self._front.options, policy=choice)
        self._front.show_notice(f"policy {choice.label} from the next answer on")

    def do_threshold(self, argument: str) -> None:
        """X: tokens skip layers above this score, 0 (most) to 1 (fewest), or calibrated"""
        threshold = parse_threshold(argument)
        self._front.set_threshold(threshold)
        shown = "calibrated" if threshold is None else f"{threshold:g}"
        self._front.show_notice(f"threshold {shown} from the next answer on")

    # ---- the context window ----------------------------------------------------------------------------------------

    def do_drop(self) -> None:
        """leave out the oldest turns, to make room in the context window"""
        self._front.require_idle()
        self._front.session.make_room()
        self._front.show_chat()

    def do_ctx(self, argument: str) -> None:
        """N: a context window of N tokens, or default; loads the model again"""
        self._front.require_idle()
        n_ctx = None if argument == parameters.DEFAULT else check(ContextTokens, "context window", argument)
        self._front.session.set_context_size(n_ctx)
        self._front.load_changed()
