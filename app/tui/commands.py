"""The slash commands. The first line of each docstring is its help."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING

from specee.app import output_file
from specee.app.chat import kept_model
from specee.app.chat.history import export
from specee.app.errors import USAGE, AppError, as_app_error
from specee.app.formatting import to_json
from specee.app.options import NO_DRAFTER, POLICIES, PolicyChoice, parse_threshold
from specee.app.settings import SAMPLING, ChatId, ContextTokens, Count, FileName, KVType, Text, check
from specee.app.tui import parameters
from specee.app.tui.copy_target import text_to_copy
from specee.app.tui.depth_panel import OFF
from specee.app.tui.entries import Help
from specee.app.tui.keys import KEY_HELP
from specee.app.tui.views import VIEWS
from specee.models.errors import ModelError
from specee.models.resolve import NotHere

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

WITH_THOUGHTS = "--with-thoughts"
_COMMAND = re.compile(r"/(\w*)(?!\S)")


def is_command(text: str) -> bool:
    """Whether a text is meant as a command: a word after a slash. A path is a question, as is what follows a space."""
    return _COMMAND.match(text) is not None


def as_typed(question: str) -> str:
    """A question as it is typed: with a space before it if it would be a command."""
    return f" {question}" if is_command(question) else question


class Commands:
    """The commands of one screen. A method `do_name` is `/name`; it raises AppError for what cannot be done.

    What follows the name is its argument; one that takes none is not run with any.
    """

    def __init__(self, app: ChatApp) -> None:
        self._app = app

    @classmethod
    def help_lines(cls) -> dict[str, str]:
        """The help of each command, by its name."""
        names = sorted(name for name in vars(cls) if name.startswith("do_"))
        return {f"/{name[3:]}": (getattr(cls, name).__doc__ or "").partition("\n")[0] for name in names}

    def completions(self, text: str) -> dict[str, str]:
        """The lines that what is written may become, each with its help: commands, and what may follow some of them."""
        found = {name: words for name, words in self.help_lines().items() if name.startswith(text)}
        for command in (
            () if found else ("/model", "/pull", "/set drafter", "/set", "/policy", "/view", "/persona", "/theme")
        ):
            if text.startswith(f"{command} "):
                lines = {f"{command} {name}": words for name, words in self._arguments(command).items()}
                return {line: words for line, words in lines.items() if line.startswith(text) and line != text}
        return found

    def _arguments(self, command: str) -> dict[str, str]:
        """What may follow a command, each with its help."""
        app = self._app
        if command in ("/model", "/pull"):
            return app.known_models
        if command == "/set drafter":
            return {NO_DRAFTER: "no model drafts", parameters.OF_THE_MODEL: "the model's own", **app.known_models}
        names = {
            "/set": (*SAMPLING, parameters.DRAFTER, parameters.KV_TYPE),
            "/policy": POLICIES,
            "/view": (*VIEWS, OFF),
            "/persona": sorted(app.personas),
            "/theme": sorted(app.available_themes),
        }
        return dict.fromkeys(names[command], "")

    async def run(self, line: str) -> None:
        """Runs a command line. Raises AppError."""
        found = _COMMAND.match(line)
        name = found[1] if found is not None else ""
        command: Callable[..., Awaitable[None]] | None = getattr(self, f"do_{name}", None)
        if command is None:
            raise AppError(
                f"there is no command /{name}", "/help lists them; a space before the / makes it a question", USAGE
            )
        argument = line[len(name) + 1 :].strip()
        if signature(command).parameters:
            await command(argument)
        elif argument:
            why = f"nothing can follow /{name}; a space before the / makes it a question"
            raise AppError(f"/{name} takes no argument", why, USAGE)
        else:
            await command()

    # ---- chats -----------------------------------------------------------------------------------------------------

    async def do_new(self) -> None:
        """begin a new chat"""
        self._app.require_idle()
        self._app.session.new()
        self._app.show_chat()
        self._app.show_notice("a new chat")

    async def do_resume(self, argument: str) -> None:
        """NUMBER: go on with that chat; without a number: the list of chats"""
        if not argument:
            self._app.action_sidebar()
            return
        self._app.require_idle()
        session = self._app.session
        kept = session.resume(check(ChatId, "chat", argument))
        self._app.options = kept.options
        self._app.show_chat()
        if kept.refused is not None:
            self._app.show_notice(f"chat {argument}: {kept.refused}", error=True)
        if kept.model is not None and kept.model != session.model:
            self._app.show_notice(kept_model.on_screen(kept.model, session.model))

    async def do_search(self, argument: str) -> None:
        """WORDS: search for them in all chats"""
        self._app.search(argument)

    async def do_earlier(self) -> None:
        """show earlier turns of this chat"""
        if not self._app.conversation.show_earlier():
            raise AppError("nothing earlier", "the whole chat is shown")

    async def do_export(self, argument: str) -> None:
        """FILE.md or FILE.json: write this chat to a file; --with-thoughts after it: with what the model thought"""
        session = self._app.session
        if session.chat is None:
            raise AppError("nothing to export", "this chat is empty")
        name = argument.removesuffix(WITH_THOUGHTS).strip()
        thoughts, name = name != argument, name or f"chat-{session.chat.id}.md"
        if name.endswith(".json"):
            tree = session.store.tree(session.chat.id)
            text = to_json(export.tree_object(session.chat, tree, session.branch, thoughts=thoughts))
        else:
            text = export.markdown(session.chat, session.branch, thoughts=thoughts)
        self._app.show_notice(f"written to {output_file.write(name, text)}")

    # ---- turns -----------------------------------------------------------------------------------------------------

    async def do_retry(self) -> None:
        """answer the last question again; the old answer stays as a branch"""
        self._app.require_idle()
        self._app.controller.answer_again()

    async def do_continue(self) -> None:
        """let the last answer go on, if it was stopped or cut short"""
        self._app.require_idle()
        self._app.controller.continue_answer()

    async def do_edit(self) -> None:
        """change the last question; the old one stays as a branch"""
        self._app.controller.edit_last()

    async def do_branch(self, argument: str) -> None:
        """NUMBER: go to another version of a question or answer (/edit and /retry make them)"""
        self._app.require_idle()
        session = self._app.session
        for turn in reversed(session.branch):
            if turn.siblings > 1:
                siblings = session.store.siblings(turn.id)
                wanted = check(Count, "branch", argument) if argument else turn.place % turn.siblings + 1
                if wanted > len(siblings):
                    raise AppError("no such branch", f"there are {len(siblings)}", USAGE)
                session.switch_branch(siblings[wanted - 1])
                self._app.show_chat()
                return
        raise AppError("no branches", "/retry and /edit make them")

    async def do_copy(self, argument: str) -> None:
        """copy the last answer; /copy 2: the message before it; /copy code: its last code block"""
        app = self._app
        messages = [turn.content for turn in app.session.branch]
        answer = next((turn.content for turn in reversed(app.session.branch) if turn.role == "assistant"), "")
        if app.busy and app.event_display.text:
            answer = app.event_display.text  # it still grows
            messages = [*messages[:-1], answer]
        app.copy(text_to_copy(argument, messages, answer))

    async def do_editor(self) -> None:
        """write the prompt in $EDITOR"""
        self._app.action_editor()

    # ---- how it answers --------------------------------------------------------------------------------------------

    async def do_policy(self, argument: str) -> None:
        """NAME: auto, chain, tree (draft tokens), exact (skips layers), pipelined, dense: same text; or specee"""
        choice = PolicyChoice.parse(argument or "auto")
        if self._app.session.info is not None:
            self._app.session.info.check(choice)
        self._app.options = replace(self._app.options, policy=choice)
        self._app.show_notice(f"policy {choice.label} from the next answer on")

    async def do_threshold(self, argument: str) -> None:
        """X: tokens skip layers above this score, 0 (most) to 1 (fewest), or calibrated"""
        threshold = parse_threshold(argument)
        self._app.set_threshold(threshold)
        shown = "calibrated" if threshold is None else f"{threshold:g}"
        self._app.show_notice(f"threshold {shown} from the next answer on")

    async def do_set(self, argument: str) -> None:
        """NAME VALUE: a parameter, like /set temperature 0.8 or /set drafter qwen2.5-0.5b; /set alone lists them"""
        sampling = self._app.options.sampling
        name, _, value = argument.partition(" ")
        name, value = name.replace("-", "_"), value.strip()
        if name == parameters.DRAFTER:
            self._set_drafter(parameters.read_drafter(value))
        elif name == parameters.KV_TYPE:
            self._set_kv_type(parameters.read_kv_type(value))
        elif name in SAMPLING:
            number = parameters.read(name, value)
            self._app.options = replace(self._app.options, sampling=replace(sampling, **{name: number}))
            self._app.show_notice(f"{name} {parameters.value_words(name, number)} from the next answer on")
        elif name in parameters.THINKING:
            chosen = parameters.read_thinking(name, value)
            self._app.options = replace(self._app.options, **{name: chosen})
            self._app.show_notice(f"{name} {parameters.value_words(name, chosen)} from the next answer on")
        else:
            known = parameters.listed(self._app.options, self._app.session.drafter, self._app.session.kv_type)
            if name:
                raise parameters.no_such(name, tuple(self.help_lines()), known)
            self._app.show_notice(f"parameters: {known}")

    def _set_kv_type(self, kv_type: KVType) -> None:
        self._app.require_idle()
        if kv_type != self._app.session.kv_type:
            self._app.session.set_kv_type(kv_type)
            self._app.controller.load_changed()

    def _set_drafter(self, name: str | None) -> None:
        self._app.require_idle()
        if name == self._app.session.drafter:
            return
        try:
            self._app.session.use_drafter(name)
        except NotHere as error:
            raise AppError(error.title, f"/pull {name} downloads it") from None
        except ModelError as error:
            raise as_app_error(error) from error
        self._app.controller.load_changed()

    async def do_system(self, argument: str) -> None:
        """TEXT: the system message of this chat"""
        self._app.session.set_system(check(Text, "system message", argument) or None)
        self._app.show_notice(f"system message: {argument}" if argument else "no system message")

    async def do_persona(self, argument: str) -> None:
        """NAME: a system message from config.toml"""
        known = self._app.personas
        if not argument or argument not in known:
            choice = f"choose from {', '.join(sorted(known))}" if known else "config.toml has no [personas]"
            raise AppError("unknown persona", choice, USAGE)
        await self.do_system(known[argument])

    # ---- the context window and the model --------------------------------------------------------------------------

    async def do_drop(self) -> None:
        """leave out the oldest turns, to make room in the context window"""
        self._app.require_idle()
        self._app.session.make_room()
        self._app.show_chat()

    async def do_summarize(self) -> None:
        """replace the oldest turns by a summary, to make room in the context window"""
        self._app.require_idle()
        self._app.controller.summarize()

    async def do_ctx(self, argument: str) -> None:
        """N: a context window of N tokens, or default; loads the model again"""
        self._app.require_idle()
        n_ctx = None if argument == parameters.DEFAULT else check(ContextTokens, "context window", argument)
        self._app.session.set_context_size(n_ctx)
        self._app.controller.load_changed()

    async def do_model(self, argument: str) -> None:
        """choose another model; /model NAME: switch to that one, the chat stays"""
        if argument:
            self._app.controller.switch_model(check(FileName, "model", argument))
        else:
            self._app.show_models()

    async def do_pull(self, argument: str) -> None:
        """NAME: download a model; Esc stops, another /pull resumes"""
        if not argument:
            raise AppError("no model given", "/pull takes a name, or hf:owner/repo", USAGE)
        self._app.controller.start_pull(argument)

    async def do_restart(self) -> None:
        """stop the model, even if it hangs, and load it again"""
        self._app.controller.restart()

    # ---- the screen ------------------------------------------------------------------------------------------------

    async def do_view(self, argument: str) -> None:
        """NAME: show the tokens as skyline, lens, elevator, inspector, dial, odometer, ledger, or off"""
        if argument not in (*VIEWS, OFF):
            raise AppError("unknown view", f"choose from {', '.join([*VIEWS, OFF])}", USAGE)
        await self._app.set_view(argument)

    async def do_race(self) -> None:
        """answer the last question twice, one token a step and with the policy in use, and compare"""
        self._app.require_idle()
        self._app.controller.race()

    async def do_theme(self, argument: str) -> None:
        """NAME: other colours; Ctrl+P lists the themes"""
        if argument not in self._app.available_themes:
            raise AppError("unknown theme", f"choose from {', '.join(sorted(self._app.available_themes))}", USAGE)
        self._app.theme = argument

    async def do_help(self) -> None:
        """list all commands, views and keys"""
        views = {name: view.CAPTION for name, view in VIEWS.items()}
        self._app.conversation.add(
            Help({"Commands": self.help_lines(), "Views of the tokens": views, "Keys": KEY_HELP})
        )

    async def do_quit(self) -> None:
        """quit; all chats are kept"""
        await self._app.action_quit()
