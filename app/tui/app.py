"""The chat screen: widgets, keys and messages. A thread talks to the session; only handlers here touch widgets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widgets import TextArea

from specee.app.chat.context_window import NEARLY_FULL
from specee.app.chat.session import Session
from specee.app.engine.client import Event
from specee.app.errors import OK, AppError, as_app_error
from specee.app.options import ChatOptions
from specee.app.tui import clipboard, idle
from specee.app.tui.answering import MAKE_ROOM, Answering
from specee.app.tui.commands import Commands
from specee.app.tui.conversation import Conversation
from specee.app.tui.depth_panel import DepthPanel
from specee.app.tui.editor import edit
from specee.app.tui.entries import Notice
from specee.app.tui.prompt import Prompt, Suggestions
from specee.app.tui.sidebar import Sidebar
from specee.app.tui.status import Status
from specee.app.tui.turns import Turns
from specee.app.tui.worker import Ended, EventsReady, Jobs

FLUSH_SECONDS = 0.125
IDLE_SECONDS = 1.0
THRESHOLD_STEP = 0.05
HINTS = "Enter sends · Ctrl+J new line · Esc stops · Up edits · Ctrl+C quits\nF2 another view of the depth · / commands"
KEYS = (
    "Ctrl+B chats · Ctrl+F search · Ctrl+R retry · Ctrl+G $EDITOR · Ctrl+Y copy · F2 view · Ctrl+Left/Right inspect · "
    "Ctrl+P palette · @file attaches\nthe mouse selects, twice selects a message or its code, then Ctrl+C copies"
)
KEY_ACTIONS = {"stop", "page", "sidebar", "command", "editor", "next_view", "inspect", "copy_or_quit"}


class ChatApp(App[int]):
    """Chats at the side, conversation, depth, figures, prompt."""

    TITLE = "specee-chat"
    CSS = """
    .-wide Sidebar, Sidebar.-shown { display: block; }
    Sidebar.-folded { display: none; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012 - an instance variable in Textual
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "copy_or_quit", "Copy, or quit", priority=True),
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("escape", "stop", "Stop", priority=True),
        Binding("pageup", "page(-1)", "Up", priority=True),
        Binding("pagedown", "page(1)", "Down", priority=True),
        Binding("ctrl+b", "sidebar", "Chats", priority=True),
        Binding("ctrl+f", "command('/search')", "Search", priority=True),
        Binding("ctrl+r", "command('/retry')", "Retry", priority=True),
        Binding("ctrl+y", "command('/copy')", "Copy", priority=True),
        Binding("ctrl+g", "editor", "Editor", priority=True),
        Binding("f2", "next_view", "View", priority=True),
        Binding("ctrl+left", "inspect(-1)", priority=True),
        Binding("ctrl+right", "inspect(1)", priority=True),
    ]

    def __init__(self, session: Session, options: ChatOptions, personas: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.session, self.options, self.personas = session, options, personas or {}
        # held, not looked up: while the app closes, what is under way may still ask for a widget that is gone
        self.conversation, self.panel, self.status = Conversation(), DepthPanel(), Status()
        self.prompt = Prompt(Commands.helps())
        self._sidebar, self._suggestions = Sidebar(session.store), Suggestions()
        self._commands = Commands(self)
        self._jobs = Jobs(self)
        self.answering = Answering(self)
        self.turns = Turns(self, self._jobs)
        self._timer: Timer | None = None
        self._blinks = True

    @property
    def busy(self) -> bool:
        """Whether the session loads or answers."""
        return self._jobs.busy

    def compose(self) -> ComposeResult:
        # no containers: each is drawn again, under everything, whenever something changes
        yield self._sidebar
        yield self.conversation
        yield self.panel
        yield self.status
        yield self._suggestions
        yield self.prompt

    def on_mount(self) -> None:
        self.prompt.focus()
        self._timer = self.set_interval(FLUSH_SECONDS, self.tick, pause=True)
        self.show_chat()
        self.tell(HINTS)
        self.turns.load()

    async def on_unmount(self) -> None:
        # its thread must end before the event loop can
        self.turns.stop()
        await asyncio.to_thread(self.session.close)

    # ---- the session's thread, and what it posts -------------------------------------------------------------------

    def work(self, job: Callable[[], Iterator[Event]]) -> None:
        """Lets the session's thread do a job; one at a time."""
        self._jobs.start(job)
        self._blinks = self.prompt.cursor_blink
        self.prompt.cursor_blink = False  # each blink draws all that is beside it
        if self._timer is not None:
            self._timer.resume()

    @property
    def _is_up(self) -> bool:
        """Whether there is a screen to show things on; messages and ticks still come while the app closes."""
        return self.is_running and self.conversation.is_attached

    def _take(self) -> bool:
        """Takes what came meanwhile; False when there is no screen any more."""
        if not self._is_up:
            return False
        for event in self._jobs.buffer.drain():
            self.answering.take(event)
        return True

    def tick(self) -> None:
        """Some times a second while there is work: show what came meanwhile."""
        if self._take():
            self.answering.tick()

    def on_events_ready(self, message: EventsReady) -> None:
        if self._take():
            self.answering.write()
            self.answering.refresh()

    def on_ended(self, message: Ended) -> None:
        if not self._take():
            return
        self.answering.write()
        path, raced = self.session.branch, self.answering.race
        self.conversation.close_answer(path[-1] if path and raced is None else None)
        if raced is not None:
            self.conversation.changed(raced)
        self._jobs.busy = False
        self.prompt.cursor_blink = self._blinks
        if self._timer is not None:
            self._timer.pause()  # nothing to do when nothing comes
        self.tidy_soon()
        self.answering.end()
        self.turns.ended(message.error)
        self._refresh_chats()
        self.answering.refresh()

    def on_conversation_longer(self, message: Conversation.Longer) -> None:
        self.tidy_soon()

    def tidy_soon(self) -> None:
        """Leaves nothing to tidy up for the middle of the next answer."""
        self.set_timer(IDLE_SECONDS, self._tidy)

    def _tidy(self) -> None:
        if not self.busy and not self.is_headless:
            idle.tidy()

    # ---- what the screen shows -------------------------------------------------------------------------------------

    def tell(self, text: str, *, error: bool = False) -> None:
        """A word from the program."""
        self.conversation.add(Notice(text, error=error))

    def tell_help(self) -> None:
        """Commands and keys."""
        self.tell("\n".join([*(f"{name:12} {text}" for name, text in Commands.helps().items()), KEYS]))

    def tell_window(self) -> None:
        """That the window is nearly full, if it is."""
        info = self.session.info
        share = self.session.context_tokens / info.n_ctx if info is not None else 0.0
        if share >= NEARLY_FULL:
            self.tell(f"the window is {share:.0%} full: {MAKE_ROOM}")

    def show_chat(self) -> None:
        """The branch in use, anew."""
        self.turns.leave_editing()
        path = self.session.branch
        self.conversation.show_path(path)
        self.panel.gauge.restore(path[-1] if path and path[-1].role == "assistant" else None)
        self._refresh_chats()
        self.answering.refresh()

    def _refresh_chats(self) -> None:
        chat = self.session.chat
        self._sidebar.refresh_chats(chat.id if chat is not None else None)

    async def set_view(self, name: str) -> None:
        """Another picture of the depth."""
        await self.panel.set_view(name)
        self._view_changed()

    def _view_changed(self) -> None:
        self.prompt.dials = self.panel.is_dial
        self.answering.refresh()

    def set_threshold(self, threshold: float | None) -> None:
        """Another threshold from the next answer on."""
        self.options = replace(self.options, policy=replace(self.options.policy, threshold=threshold))
        self.answering.refresh()

    def search(self, words: str) -> None:
        """Looks for words in all chats."""
        self._sidebar.search(words)

    def copy(self, text: str) -> None:
        """Puts a text into the clipboard, and says so."""
        self.copy_to_clipboard(text)
        if not self.is_headless:
            clipboard.copy(text)
        self.notify(f"copied {len(text)} characters", timeout=2)

    # ---- what the user does ----------------------------------------------------------------------------------------

    def need_rest(self) -> None:
        """Raises AppError while an answer is under way."""
        if self.busy:
            raise AppError("still busy", "Esc stops")

    async def action_command(self, line: str) -> None:
        """A command line, from the prompt or from a key."""
        try:
            await self._commands.run(line)
        except (AppError, OSError) as error:
            self.tell(as_app_error(error).line, error=True)

    async def on_prompt_sent(self, message: Prompt.Sent) -> None:
        if message.text.startswith("/"):
            await self.action_command(message.text)
        else:
            self.turns.ask(message.text)

    def on_prompt_edit_last(self, message: Prompt.EditLast) -> None:
        self.turns.edit_last()

    def on_prompt_dialed(self, message: Prompt.Dialed) -> None:
        now = self.options.policy.threshold
        now = 0.7 if now is None else now
        self.set_threshold(round(min(1.0, max(0.0, now + message.direction * THRESHOLD_STEP)), 2))

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        self._suggestions.show(self.prompt.matches(), Commands.helps())

    async def on_sidebar_chosen(self, message: Sidebar.Chosen) -> None:
        await self.action_command(f"/resume {message.chat}")
        if message.turn is not None and not self.busy and message.turn not in [turn.id for turn in self.session.branch]:
            self.session.switch_branch(message.turn)  # in another branch
            self.show_chat()
        self._sidebar.fold()
        self.prompt.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Our keys are for the chat screen: what lies above it (the palette) has its own."""
        if len(self.screen_stack) > 1 and action in KEY_ACTIONS:
            return False
        return super().check_action(action, parameters)

    def action_stop(self) -> None:
        self.screen.clear_selection()
        if not self.prompt.has_focus:
            self._sidebar.fold()
            self.prompt.focus()
        elif self.turns.editing:
            self.turns.leave_editing()
            self.prompt.clear()
        else:
            self.turns.stop()

    def action_page(self, direction: int) -> None:
        if direction < 0 and self.conversation.scroll_offset.y == 0:
            self.conversation.earlier()
        elif direction < 0:
            self.conversation.scroll_page_up(animate=False)
        else:
            self.conversation.scroll_page_down(animate=False)

    def action_sidebar(self) -> None:
        """Shows the chats, or folds them away."""
        if not self._sidebar.toggle():
            self.prompt.focus()

    async def action_next_view(self) -> None:
        await self.panel.next_view()
        self._view_changed()

    def action_inspect(self, step: int) -> None:
        self.panel.inspect(step)

    def action_editor(self) -> None:
        """The prompt in $EDITOR."""
        try:
            with self.suspend():
                text = edit(self.prompt.text)
        except (SuspendNotSupported, OSError) as error:
            self.notify(f"no editor: {error}", severity="error")
            return
        self.prompt.write(text)

    def action_copy_or_quit(self) -> None:
        """Copies what is selected; when nothing is, leaves."""
        selected = self.screen.get_selected_text() or self.prompt.selected_text
        if selected:
            self.copy(selected)
            self.screen.clear_selection()
        else:
            self.exit(OK)

    async def action_quit(self) -> None:
        self.exit(OK)


def run_tui(session: Session, options: ChatOptions, personas: Mapping[str, str]) -> int:
    """Runs the screen until the user leaves; returns the exit code."""
    return ChatApp(session, options, personas).run() or OK
