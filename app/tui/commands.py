"""The slash commands of the screen, besides those that every front end has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from specee.app.chat.commands import ChatCommands
from specee.app.chat.copy_target import text_to_copy
from specee.app.errors import USAGE, AppError
from specee.app.settings import FileName, check
from specee.app.tui.depth_panel import OFF
from specee.app.tui.entries import Help
from specee.app.tui.keys import KEY_HELP
from specee.app.tui.views import VIEWS

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp


class Commands(ChatCommands):
    """The commands of one screen."""

    def __init__(self, app: ChatApp) -> None:
        super().__init__(app)
        self._app = app

    def arguments(self) -> dict[str, Callable[[], Mapping[str, str]]]:
        return super().arguments() | {
            "/view": lambda: dict.fromkeys((*VIEWS, OFF), ""),
            "/theme": lambda: dict.fromkeys(sorted(self._app.available_themes), ""),
        }

    # ---- chats -----------------------------------------------------------------------------------------------------

    def do_resume(self, argument: str) -> None:
        """NUMBER: go on with that chat; without a number: the list of chats"""
        if argument:
            self.resume(argument)
        else:
            self._app.action_sidebar()

    def do_rename(self, argument: str) -> None:
        """TITLE: what this chat is called in the list of chats"""
        super().do_rename(argument)
        self._app.refresh_chats()

    def do_search(self, argument: str) -> None:
        """WORDS: search for them in all chats"""
        self._app.search(argument)

    def do_earlier(self) -> None:
        """show earlier turns of this chat"""
        if not self._app.conversation.show_earlier():
            raise AppError("nothing earlier", "the whole chat is shown")

    # ---- turns -----------------------------------------------------------------------------------------------------

    def do_retry(self) -> None:
        """answer the last question again; the old answer stays as a branch"""
        self._app.require_idle()
        self._app.controller.answer_again()

    def do_continue(self) -> None:
        """let the last answer go on, if it was stopped or cut short"""
        self._app.require_idle()
        self._app.controller.continue_answer()

    def do_edit(self) -> None:
        """change the last question; the old one stays as a branch"""
        self._app.controller.edit_last()

    def do_copy(self, argument: str) -> None:
        """copy the last answer; /copy 2: the message before it; /copy code: its last code block"""
        app = self._app
        messages = [turn.content for turn in app.session.branch]
        answer = next((turn.content for turn in reversed(app.session.branch) if turn.role == "assistant"), "")
        if app.busy and app.event_display.text:
            answer = app.event_display.text  # it still grows
            messages = [*messages[:-1], answer]
        app.copy(text_to_copy(argument, messages, answer))

    def do_editor(self) -> None:
        """write the prompt in $EDITOR"""
        self._app.action_editor()

    # ---- the model -------------------------------------------------------------------------------------------------

    def do_summarize(self) -> None:
        """replace the oldest turns by a summary, to make room in the context window"""
        self._app.require_idle()
        self._app.controller.summarize()

    def do_model(self, argument: str) -> None:
        """choose another model; /model NAME: switch to that one, the chat stays"""
        if argument:
            self._app.controller.switch_model(check(FileName, "model", argument))
        else:
            self._app.show_models()

    def do_pull(self, argument: str) -> None:
        """NAME: download a model; Esc stops, another /pull resumes"""
        if not argument:
            raise AppError("no model given", "/pull takes a name, or hf:owner/repo", USAGE)
        self._app.controller.start_pull(argument)

    def do_restart(self) -> None:
        """stop the model, even if it hangs, and load it again"""
        self._app.controller.restart()

    def do_settings(self, argument: str) -> None:
        """all settings; NAME VALUE: for this chat; with --keep behind: for every new one, too"""
        if argument:
            super().do_settings(argument)
        else:
            self._app.show_settings()

    def do_persona(self, argument: str) -> None:
        """choose a persona, or make one; NAME: its system message; or save NAME [TEXT], rename NAME NEW, delete NAME"""
        if argument:
            super().do_persona(argument)
        else:
            self._app.show_texts()

    def do_prompt(self, argument: str) -> None:
        """NAME: a saved prompt, into the prompt; alone: all; or save NAME [TEXT], rename NAME NEW, delete NAME"""
        if argument:
            super().do_prompt(argument)
        else:
            self._app.show_texts()

    # ---- the screen ------------------------------------------------------------------------------------------------

    async def do_view(self, argument: str) -> None:
        """NAME: another view of the tokens: columns, tokens, histogram, token, threshold, totals, costs, or off"""
        if argument not in (*VIEWS, OFF):
            raise AppError("unknown view", f"choose from {', '.join([*VIEWS, OFF])}", USAGE)
        await self._app.set_view(argument)

    def do_race(self) -> None:
        """answer the last question twice, one token a step and with the policy in use, and compare"""
        self._app.require_idle()
        self._app.controller.race()

    def do_theme(self, argument: str) -> None:
        """NAME: other colours; Ctrl+P lists the themes"""
        if argument not in self._app.available_themes:
            raise AppError("unknown theme", f"choose from {', '.join(sorted(self._app.available_themes))}", USAGE)
        self._app.theme = argument

    def do_keys(self) -> None:
        """all keys, by where they work"""
        self._app.show_keys()

    def do_help(self) -> None:
        """list all commands, views and keys"""
        views = {name: view.CAPTION for name, view in VIEWS.items()}
        self._app.conversation.add(
            Help({"Commands": self.help_lines(), "Views of the tokens": views, "Keys": KEY_HELP})
        )

    async def do_quit(self) -> None:
        """quit; all chats are kept"""
        await self._app.action_quit()
