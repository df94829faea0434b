"""The slash commands without a screen, besides those that every front end has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specee.app import clipboard, config_file
from specee.app.chat import setting_list
from specee.app.chat.commands import ChatCommands, as_typed
from specee.app.chat.copy_target import text_to_copy
from specee.app.chat.saved_texts import WORDS
from specee.app.config_file import PERSONAS, PROMPTS
from specee.app.editor import edit
from specee.app.errors import USAGE, AppError
from specee.app.formatting import label, visible
from specee.app.settings import FileName, check

if TYPE_CHECKING:
    from specee.app.plain.chat import PlainChat

SHOWN_CHATS = 20


class QuitError(Exception):
    """The user leaves."""


class PlainCommands(ChatCommands):
    """The commands of one chat of lines."""

    def __init__(self, chat: PlainChat) -> None:
        super().__init__(chat)
        self._chat = chat

    # ---- chats -----------------------------------------------------------------------------------------------------

    def do_resume(self, argument: str) -> None:
        """NUMBER: go on with that chat; without a number: the last chats"""
        if argument:
            self.resume(argument)
            return
        chats = self._chat.session.store.chats(SHOWN_CHATS)
        if not chats:
            raise AppError("no chats", "none is kept yet")
        for chat in reversed(chats):
            self._chat.show(f"{chat.id}  {chat.title}")

    def do_search(self, argument: str) -> None:
        """WORDS: search for them in all chats"""
        if not argument:
            raise AppError("nothing to search for", "/search takes words", USAGE)
        hits = self._chat.session.store.search(argument)
        if not hits:
            raise AppError("not found", argument)
        for hit in reversed(hits):
            self._chat.show(f"{hit.chat}  {' '.join(hit.excerpt.split())}")
        self._chat.show_notice("/resume NUMBER goes on with a chat")

    def do_earlier(self) -> None:
        """show this chat from its beginning"""
        self._chat.show_turns(self._chat.session.branch)

    # ---- turns -----------------------------------------------------------------------------------------------------

    def do_retry(self) -> None:
        """answer the last question again; the old answer stays as a branch"""
        self._chat.answer(self._chat.session.answer_again(self._chat.options))

    def do_continue(self) -> None:
        """let the last answer go on, if it was stopped or cut short"""
        self._chat.answer(self._chat.session.continue_answer(self._chat.options))

    def do_edit(self) -> None:
        """change the last question; the old one stays as a branch"""
        question = next((turn for turn in reversed(self._chat.session.branch) if turn.role == "user"), None)
        if question is None:
            raise AppError("nothing to edit", "there is no question yet")
        self._chat.edit(question.id, as_typed(question.content))

    def do_copy(self, argument: str) -> None:
        """copy the last answer; /copy 2: the message before it; /copy code: its last code block"""
        branch = self._chat.session.branch
        answer = next((turn.content for turn in reversed(branch) if turn.role == "assistant"), "")
        text = text_to_copy(argument, [turn.content for turn in branch], answer)
        if clipboard.command() is None:
            raise AppError(
                "cannot copy", "no program for the clipboard is here; /export FILE writes the chat to a file"
            )
        clipboard.copy(text)
        self._chat.show_notice(f"copied {len(text)} characters")

    def do_editor(self) -> None:
        """write the question in $EDITOR; it is sent when the editor is closed"""
        if text := edit("").strip():
            self._chat.show(text)
            self._chat.ask(text)

    # ---- the model -------------------------------------------------------------------------------------------------

    def do_drop(self) -> None:
        """leave out the oldest turns, to make room in the context window"""
        n = self._chat.session.make_room()
        self._chat.show_notice(f"the oldest {n} turns are left out from here on")

    def do_summarize(self) -> None:
        """replace the oldest turns by a summary, to make room in the context window"""
        self._chat.show_notice("summarizing")
        n = self._chat.session.make_room(summarize=True)
        self._chat.show_notice(f"a summary stands for the oldest {n} turns from here on")

    def do_model(self, argument: str) -> None:
        """NAME: switch to another model, the chat stays; without a name: those that are known"""
        if argument:
            self._chat.switch_model(check(FileName, "model", argument))
            return
        for name, words in self._chat.known_models.items():
            self._chat.show(f"{name}  {words}" if words else name)
        self._chat.show_notice(
            f"{self._chat.session.model} answers; /model NAME takes another one, /pull NAME fetches it"
        )

    def do_pull(self, argument: str) -> None:
        """NAME: download a model; Ctrl+C stops, another /pull resumes"""
        if not argument:
            raise AppError("no model given", "/pull takes a name, or hf:owner/repo", USAGE)
        self._chat.pull(argument)

    def do_restart(self) -> None:
        """stop the model, even if it hangs, and load it again"""
        self._chat.session.close()
        self._chat.load()

    def do_race(self) -> None:
        """answer the last question twice, one token a step and with the policy in use, and compare"""
        self._chat.race()

    def do_settings(self, argument: str) -> None:
        """all settings; NAME: what it does; NAME VALUE: for this chat; with --keep behind: for every new one, too"""
        if argument:
            super().do_settings(argument)
            return
        kept, heading = config_file.read(self._chat.session.folders.config), ""
        for one in setting_list.all_settings():
            if one.heading != heading:
                heading = one.heading
                self._chat.show(heading)
            words = label(visible(one.words(setting_list.value(self._chat, one, kept))))
            self._chat.show(f"  {one.name:18} {words:14} {setting_list.origin(self._chat, one, kept)}")
        self._chat.show_notice("/settings NAME says what one does")

    def do_persona(self, argument: str) -> None:
        """NAME: its system message; alone: all; save NAME [TEXT] (or the present one), rename NAME NEW, delete NAME"""
        if argument:
            super().do_persona(argument)
        else:
            self._show_texts(PERSONAS)

    def do_prompt(self, argument: str) -> None:
        """NAME: a saved prompt; alone: all; save NAME [TEXT] (or the last question), rename NAME NEW, delete NAME"""
        if argument:
            super().do_prompt(argument)
        else:
            self._show_texts(PROMPTS)

    def _show_texts(self, table: str) -> None:
        texts = self._chat.texts
        texts.read()
        found = texts.by_name[table]
        for name in sorted(found):
            self._chat.show(f"{label(visible(name))}: {label(visible(found[name]))}")
        verb = f"/{table[:-1]}"
        uses = f"{verb} NAME uses one; " if found else f"no {WORDS[table]} is kept yet; "
        self._chat.show_notice(f"{uses}{verb} save NAME TEXT keeps one")

    # ---- the program -----------------------------------------------------------------------------------------------

    def do_help(self) -> None:
        """list all commands"""
        lines = self.help_lines()
        width = max(map(len, lines))
        for name, words in lines.items():
            self._chat.show(f"{name:{width}}  {words}")
        self._chat.show('@FILE in a question sends a file with it; """ begins and ends a text of several lines')
        self._chat.show("Ctrl+C stops an answer; Ctrl+D quits")

    def do_quit(self) -> None:
        """quit; all chats are kept"""
        raise QuitError
