"""What can be said to the program with a slash. The first line of each docstring is its help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specee.app.chat.history import export
from specee.app.errors import USAGE, AppError, as_app_error
from specee.app.formatting import to_json
from specee.app.options import PolicyChoice, Sampling, parse_threshold, recall
from specee.app.tui.copying import choose
from specee.app.tui.depth_panel import OFF
from specee.app.tui.views import VIEWS
from specee.models.errors import ModelError
from specee.models.resolve import NotHere

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp


class Commands:
    """The commands of one screen. A method `do_name` is `/name`; it raises AppError for what cannot be done."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app

    @classmethod
    def helps(cls) -> dict[str, str]:
        """All commands with their help."""
        names = sorted(name for name in vars(cls) if name.startswith("do_"))
        return {f"/{name[3:]}": (getattr(cls, name).__doc__ or "").partition("\n")[0] for name in names}

    async def run(self, line: str) -> None:
        """Does a command line. Raises AppError."""
        name, _, argument = line[1:].partition(" ")
        command: Callable[[str], Awaitable[None]] | None = getattr(self, f"do_{name}", None)
        if command is None:
            raise AppError(f"/{name} is no command", "/help lists them", USAGE)
        await command(argument.strip())

    # ---- chats -----------------------------------------------------------------------------------------------------

    async def do_new(self, argument: str) -> None:
        """a new conversation"""
        self._app.need_rest()
        self._app.session.new()
        self._app.show_chat()
        self._app.tell("a new conversation")

    async def do_resume(self, argument: str) -> None:
        """NUMBER: go on with that chat; without a number, show the list"""
        if not argument:
            self._app.action_sidebar()
            return
        self._app.need_rest()
        session = self._app.session
        session.resume(_number(argument))
        assert session.chat is not None
        self._app.options = recall(session.chat.options)
        self._app.show_chat()

    async def do_search(self, argument: str) -> None:
        """WORDS: find them in all chats"""
        self._app.search(argument)

    async def do_earlier(self, argument: str) -> None:
        """show more turns of this conversation, above those on the screen"""
        if not self._app.conversation.earlier():
            raise AppError("nothing earlier", "the whole conversation is there")

    async def do_export(self, argument: str) -> None:
        """FILE.md or FILE.json: write this chat there"""
        session = self._app.session
        if session.chat is None:
            raise AppError("nothing to export", "this conversation is empty")
        path = Path(argument or f"chat-{session.chat.id}.md").expanduser()
        if path.suffix == ".json":
            text = to_json(export.tree_object(session.chat, session.store.tree(session.chat.id), session.branch))
        else:
            text = export.markdown(session.chat, session.branch)
        path.write_text(text, "utf-8")
        self._app.tell(f"written to {path.absolute()}")

    # ---- turns -----------------------------------------------------------------------------------------------------

    async def do_retry(self, argument: str) -> None:
        """answer the last question again; the old answer stays as a branch"""
        self._app.need_rest()
        self._app.turns.again()

    async def do_continue(self, argument: str) -> None:
        """let the last answer go on"""
        self._app.need_rest()
        self._app.turns.on()

    async def do_edit(self, argument: str) -> None:
        """change the last question; the old one stays as a branch"""
        self._app.turns.edit_last()

    async def do_branch(self, argument: str) -> None:
        """NUMBER: show that version of the last turn that has several"""
        self._app.need_rest()
        session = self._app.session
        for turn in reversed(session.branch):
            if turn.siblings > 1:
                siblings = session.store.siblings(turn.id)
                wanted = _number(argument) if argument else turn.place % turn.siblings + 1
                if not 1 <= wanted <= len(siblings):
                    raise AppError("no such branch", f"there are {len(siblings)}", USAGE)
                session.switch_branch(siblings[wanted - 1])
                self._app.show_chat()
                return
        raise AppError("no branches", "/retry and /edit make them")

    async def do_copy(self, argument: str) -> None:
        """the last answer; `/copy 2` the one before, `/copy code` its last code block, `/copy code 1` its first"""
        app = self._app
        turns = [turn.content for turn in app.session.branch]
        answer = next((turn.content for turn in reversed(app.session.branch) if turn.role == "assistant"), "")
        if app.busy and app.answering.text:
            answer = app.answering.text  # it still grows
            turns = [*turns[:-1], answer]
        app.copy(choose(argument, turns, answer))

    async def do_editor(self, argument: str) -> None:
        """write the prompt in $EDITOR"""
        self._app.action_editor()

    # ---- how it answers --------------------------------------------------------------------------------------------

    async def do_policy(self, argument: str) -> None:
        """NAME: auto, dense, exact, specee, specee@0.5, ..."""
        choice = PolicyChoice.parse(argument or "auto")
        self._app.options = replace(self._app.options, policy=choice)
        self._app.tell(f"policy {choice.label} from the next answer on")

    async def do_threshold(self, argument: str) -> None:
        """X: leave early above this score, 0 to 1 or calibrated"""
        self._app.set_threshold(parse_threshold(argument))

    async def do_set(self, argument: str) -> None:
        """NAME VALUE: a sampling parameter of this chat, like temperature 0.8"""
        sampling = self._app.options.sampling
        name, _, value = argument.partition(" ")
        name = name.replace("-", "_")
        kinds: dict[str, Any] = {field.name: type(getattr(Sampling(seed=0), field.name)) for field in fields(Sampling)}
        if name not in kinds:
            shown = ", ".join(f"{key} {getattr(sampling, key)}" for key in kinds)
            raise AppError("which parameter", shown, USAGE)
        try:
            sampling = replace(sampling, **{name: kinds[name](value)})
        except ValueError:
            raise AppError("bad value", f"{value!r} for {name}", USAGE) from None
        self._app.options = replace(self._app.options, sampling=sampling)
        self._app.tell(f"{name} {value} from the next answer on")

    async def do_system(self, argument: str) -> None:
        """TEXT: the system prompt of this chat"""
        self._app.session.set_system(argument or None)
        self._app.tell(f"system prompt: {argument or 'none'}")

    async def do_persona(self, argument: str) -> None:
        """NAME: a system prompt from config.toml"""
        known = self._app.personas
        if argument not in known:
            raise AppError("unknown persona", ", ".join(sorted(known)) or "config.toml has no [personas]", USAGE)
        await self.do_system(known[argument])

    # ---- the window and the engine ---------------------------------------------------------------------------------

    async def do_drop(self, argument: str) -> None:
        """make room in the window: the oldest turns are not sent any more"""
        self._app.need_rest()
        self._app.session.make_room()
        self._app.show_chat()

    async def do_summarize(self, argument: str) -> None:
        """make room in the window: a summary takes the place of the oldest turns"""
        self._app.need_rest()
        self._app.turns.summarize()

    async def do_ctx(self, argument: str) -> None:
        """N: a window of N tokens; the model is loaded again"""
        self._app.need_rest()
        wanted = _number(argument)
        if wanted < 16:
            raise AppError("bad window", "give 16 tokens or more", USAGE)
        self._app.session.set_context_size(wanted)
        self._app.turns.load()

    async def do_model(self, argument: str) -> None:
        """NAME: another model answers this chat from now on"""
        self._app.need_rest()
        try:
            self._app.session.use_model(argument)
        except NotHere as error:
            raise AppError(error.title, f"/pull {argument} fetches it") from None
        except ModelError as error:
            raise as_app_error(error) from error
        self._app.turns.load()

    async def do_pull(self, argument: str) -> None:
        """NAME: fetch a model; Esc stops, and the next /pull goes on from there"""
        self._app.need_rest()
        if not argument:
            raise AppError("which model", "give a name, or hf:owner/repo", USAGE)
        self._app.turns.pull(argument)

    async def do_restart(self, argument: str) -> None:
        """end the engine, also one that hangs, and start it again"""
        self._app.turns.restart()

    # ---- the screen ------------------------------------------------------------------------------------------------

    async def do_view(self, argument: str) -> None:
        """NAME: skyline, lens, elevator, inspector, dial, odometer, ledger or off; F2 goes through them"""
        if argument not in (*VIEWS, OFF):
            raise AppError("unknown view", ", ".join([*VIEWS, OFF]), USAGE)
        await self._app.set_view(argument)

    async def do_race(self, argument: str) -> None:
        """the last question again, dense against the policy in use"""
        self._app.need_rest()
        self._app.turns.race()

    async def do_theme(self, argument: str) -> None:
        """NAME: the colours; Ctrl+P has them too"""
        if argument not in self._app.available_themes:
            raise AppError("unknown theme", ", ".join(sorted(self._app.available_themes)), USAGE)
        self._app.theme = argument

    async def do_help(self, argument: str) -> None:
        """all commands and keys"""
        self._app.tell_help()

    async def do_quit(self, argument: str) -> None:
        """leave; everything is kept"""
        await self._app.action_quit()


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise AppError("not a number", repr(text), USAGE) from None
