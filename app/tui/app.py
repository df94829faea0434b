"""The chat screen. A thread talks to the session and posts messages; only their handlers touch widgets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import ClassVar

from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import TextArea
from textual.worker import get_current_worker

from specee.app.attach import attach
from specee.app.engine_client import EngineLostError, Event, Silence
from specee.app.errors import OK, PROMPT_TOO_LONG, AppError, as_app_error
from specee.app.options import ChatOptions
from specee.app.protocol import ChatEvent, Done, Progress, PromptProgress, Started
from specee.app.session import NEARLY_FULL, Session
from specee.app.tui.commands import Commands
from specee.app.tui.conversation import Conversation, Notice, Said
from specee.app.tui.depth_panel import DepthPanel
from specee.app.tui.editor import edit
from specee.app.tui.prompt import Prompt, Suggestions
from specee.app.tui.pulling import Pull
from specee.app.tui.race import Lane, Race, lanes
from specee.app.tui.sidebar import Sidebar
from specee.app.tui.state import status_lines
from specee.app.tui.status import Status
from specee.app.tui.worker import Buffer, Ended, EventsReady

FLUSH_SECONDS = 0.1
THRESHOLD_STEP = 0.05
HINTS = "Enter sends · Ctrl+J new line · Esc stops · Up edits · Ctrl+C quits\nF2 another view of the depth · / commands"
KEYS = (
    "Ctrl+B chats · Ctrl+F search · Ctrl+R retry · Ctrl+G $EDITOR · Ctrl+Y copy · F2 view · "
    "Ctrl+Left/Right inspect · Ctrl+P palette · @file attaches"
)
MAKE_ROOM = "/drop leaves out the oldest turns, /summarize sums them up, /ctx N gives more room"


class ChatApp(App[int]):
    """Chats at the side, conversation, depth, figures, prompt."""

    TITLE = "specee-chat"
    CSS = """
    .-wide Sidebar, Sidebar.-shown { display: block; }
    Sidebar.-folded { display: none; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012 - an instance variable in Textual
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q", "quit", "Quit", priority=True),
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
        self._commands = Commands(self)
        self._buffer = Buffer()
        self._activity = "starting"
        self._busy = False
        self._waiting: str | None = None  # sent before the model was loaded
        self._asked = ""  # goes back into the prompt when it is refused
        self._editing: int | None = None
        self._pending_text = ""
        self._growing = ""  # the answer so far, for /copy
        self._stale = True  # the figures on the screen
        self._changed = False  # the branch in use is another when the session is free again
        self._race: tuple[Race, Lane, Lane] | None = None
        self._pull: Pull | None = None
        # held, not looked up: while the app closes, what is under way may still ask for a widget that is gone
        self._sidebar = Sidebar(session.store)
        self._conversation, self._panel, self._status = Conversation(), DepthPanel(), Status()
        self._suggestions, self._prompt = Suggestions(), Prompt(Commands.helps())

    @property
    def busy(self) -> bool:
        """Whether the session loads or answers."""
        return self._busy

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield self._sidebar
            with Vertical():
                yield self._conversation
                yield self._panel
                yield self._status
                yield self._suggestions
                yield self._prompt

    async def on_mount(self) -> None:
        self._prompt.focus()
        self.set_interval(FLUSH_SECONDS, self._show_pending)
        await self.show_chat()
        await self.tell(HINTS)
        self.load()

    async def on_unmount(self) -> None:
        # its thread must end before the event loop can
        if self._pull is not None:
            self._pull.stop()
        await asyncio.to_thread(self.session.close)

    # ---- the session's thread --------------------------------------------------------------------------------------

    def _work(self, job: Callable[[], Iterator[Event]]) -> None:
        """Lets a thread do a job with the session; at most one at a time."""
        self._busy = True
        self.run_worker(lambda: self._talk(job), thread=True, exit_on_error=False)

    def _talk(self, job: Callable[[], Iterator[Event]]) -> None:
        error: AppError | None = None
        worker = get_current_worker()
        try:
            for event in job():
                self._buffer.put(event)
                self.post_message(EventsReady())
                if worker.is_cancelled:
                    return
        except Exception as caught:  # whatever it is, the user gets a line and the screen stays
            error = caught if isinstance(caught, EngineLostError) else as_app_error(caught)
        self.post_message(Ended(error))

    # ---- what it posts ---------------------------------------------------------------------------------------------

    @property
    def _is_up(self) -> bool:
        """Whether there is a screen to show things on; messages and ticks still come while the app closes."""
        return self.is_running and self._conversation.is_attached

    async def on_events_ready(self, message: EventsReady) -> None:
        if not self._is_up:
            return
        for event in self._buffer.drain():
            await self._take(event)

    async def on_ended(self, message: Ended) -> None:
        if not self._is_up:
            return
        for event in self._buffer.drain():
            await self._take(event)
        await self._show_pending()
        path = self.session.path
        await self._conversation.close_answer(path[-1] if path and self._race is None else None)
        transfer, self._pull = self._pull, None
        self._busy, self._race, self._activity = False, None, ""
        refused = message.error is not None and not isinstance(message.error, EngineLostError)
        if self._changed or (refused and self._asked):  # what was refused is not there any more
            self._changed = False
            await self.show_chat()
        if message.error is not None:
            await self._tell_error(message.error)
        elif transfer is not None:
            await self.tell(transfer.told)
        elif self._window_share() >= NEARLY_FULL:
            await self.tell(f"the window is {self._window_share():.0%} full: {MAKE_ROOM}")
        chat = self.session.chat
        self._sidebar.refresh_chats(chat.id if chat is not None else None)
        self._refresh_figures()
        if self._waiting is not None and message.error is None:
            text, self._waiting = self._waiting, None
            self._send(text)
        self._waiting = None

    async def _tell_error(self, error: AppError) -> None:
        self._activity = "" if self.session.info else "not running"
        hint = ""
        if isinstance(error, EngineLostError):
            hint = "\n/continue or /retry starts it again; the conversation is kept"
        elif error.exit_code == PROMPT_TOO_LONG:
            hint = f"\n{MAKE_ROOM}"
        await self.tell(error.line + hint, error=True)
        if self._asked and not self._prompt.text and not isinstance(error, EngineLostError):
            self._prompt.write(self._asked)

    async def _take(self, event: Event) -> None:
        self._stale = True
        gauge = self._panel.gauge
        if isinstance(event, Progress):
            share = "" if event.fraction is None else f" {event.fraction:.0%}"
            self._activity = event.what + share
        elif isinstance(event, PromptProgress):
            self._activity = f"reading {event.done} of {event.total}"
        elif isinstance(event, Silence):
            self._activity = f"no sign of the engine for {event.seconds:.0f} s"
            await self.tell(f"{self._activity}: it computes, or hangs; /restart ends it, the conversation is kept")
        elif self._race is not None:
            self._take_race(event)
        elif isinstance(event, Started):
            self._activity = "answering"
            gauge.begin(event.policy, event.policy_reason, event.dense_rate)
            await self._conversation.open_answer(self._growing)
        elif isinstance(event, ChatEvent):
            gauge.add(event)
            if event.state == "verified":
                self._pending_text += event.text
                self._growing += event.text
        elif isinstance(event, Done):
            gauge.finish(event.stats, self.options.policy.threshold)
            if event.stats.stop_reason == "window":
                await self.tell(f"the window is full: {MAKE_ROOM}; then /continue")

    # ---- what the screen shows -------------------------------------------------------------------------------------

    async def tell(self, text: str, *, error: bool = False) -> None:
        """A word from the program."""
        await self._conversation.add(Notice(text, error=error))

    async def tell_help(self) -> None:
        """Commands and keys."""
        await self.tell("\n".join([*(f"{name:12} {text}" for name, text in Commands.helps().items()), KEYS]))

    async def show_chat(self, *, all_of_it: bool = False) -> None:
        """The branch in use, anew."""
        self._editing = None
        path, chat = self.session.path, self.session.chat
        await self._conversation.show_path(path, all_of_it=all_of_it)
        self._panel.gauge.restore(path[-1] if path and path[-1].role == "assistant" else None)
        self._sidebar.refresh_chats(chat.id if chat is not None else None)
        self._stale = True

    async def _show_pending(self) -> None:
        """Ten times a second: show what came meanwhile."""
        if not self._is_up:
            return
        if self._pending_text:
            text, self._pending_text = self._pending_text, ""
            await self._conversation.write(text)
        if self._stale:
            self._refresh_figures()

    def _refresh_figures(self) -> None:
        self._stale = False
        info = self.session.info
        self._panel.draw(info.n_layers if info else 1, self.options.policy.threshold)
        self._status.show(status_lines(self._panel.gauge, info, self._activity, self.session.used))
        if self._race is not None:
            self._race[0].show(*self._race[1:])

    def _window_share(self) -> float:
        info = self.session.info
        return self.session.used / info.n_ctx if info is not None else 0.0

    def last_answer(self) -> str:
        """The text of the last answer, also of one that grows."""
        if self._busy:
            return self._growing
        return next((turn.content for turn in reversed(self.session.path) if turn.role == "assistant"), "")

    async def set_view(self, name: str) -> None:
        """Another picture of the depth."""
        await self._panel.set_view(name)
        self._view_changed()

    def _view_changed(self) -> None:
        self._prompt.dials = self._panel.is_dial
        self._refresh_figures()

    # ---- what the user does ----------------------------------------------------------------------------------------

    def need_rest(self) -> None:
        """Raises AppError while an answer is under way."""
        if self._busy:
            raise AppError("still busy", "Esc stops")

    async def on_prompt_sent(self, message: Prompt.Sent) -> None:
        if message.text.startswith("/"):
            await self.action_command(message.text)
            return
        if self._busy and self.session.info is not None:
            self._prompt.write(message.text)  # one at a time: it stays where it was
            self.notify("still answering; Esc stops", timeout=2)
            return
        try:
            text, files = attach(message.text)
        except AppError as error:
            self._prompt.write(message.text)
            await self.tell(error.line, error=True)
            return
        self._asked = message.text
        if self._editing is not None:
            await self._send_edited(text)
            return
        await self._conversation.add(Said(message.text))
        if files:
            await self.tell("attached: " + ", ".join(f"{file} ({file.stat().st_size} bytes)" for file in files))
        if self._busy:
            self._waiting = text
        else:
            self._send(text)

    def _send(self, text: str) -> None:
        self._growing = ""
        self._work(lambda: self.session.send(text, self.options))

    async def _send_edited(self, text: str) -> None:
        turn, self._editing = self._editing, None
        assert turn is not None
        before = [t.id for t in self.session.path].index(turn)
        await self._conversation.show_path(self.session.path[:before])
        await self._conversation.add(Said(text))
        self._growing = ""
        self._work(lambda: self.session.edit(turn, text, self.options))

    def on_prompt_edit_last(self, message: Prompt.EditLast) -> None:
        self.edit_last()

    def edit_last(self) -> None:
        """Puts the last question into the prompt; sending it makes a branch."""
        question = next((turn for turn in reversed(self.session.path) if turn.role == "user"), None)
        if question is not None and not self._busy:
            self._editing = question.id
            self._prompt.write(question.content)
            self.notify("sending makes a branch; Esc leaves it", timeout=3)

    async def answer_again(self) -> None:
        """The last question once more."""
        path = self.session.path
        await self._conversation.show_path(path[:-1] if path and path[-1].role == "assistant" else path)
        self._growing = ""
        self._work(lambda: self.session.regenerate(self.options))

    async def answer_on(self) -> None:
        """More of the last answer."""
        path = self.session.path
        if not path or path[-1].role != "assistant":
            raise AppError("nothing to go on with", "there is no answer yet")
        await self._conversation.show_path(path[:-1])
        self._growing = path[-1].content
        self._work(lambda: self.session.go_on(self.options))

    def load(self) -> None:
        """Loads the model, if it is not there."""
        self._asked = ""
        self._work(self.session.open)

    def restart(self) -> None:
        """Ends the engine; if nothing waits for it, starts it again at once."""
        self.session.kill()
        if not self._busy:
            self.session.close()
            self.load()

    def summarize(self) -> None:
        """Lets the model sum up the oldest turns."""
        self._activity = "summarizing"

        def job() -> Iterator[Event]:
            self.session.make_room(summarize=True)
            return iter(())

        self._asked, self._changed = "", True
        self._work(job)

    def pull(self, name: str) -> None:
        """Fetches a model."""
        transfer = self._pull = Pull(name)
        self._activity, self._asked = f"asking for {name}", ""

        def show(progress: Progress) -> None:
            self._buffer.put(progress)
            self.post_message(EventsReady())

        def job() -> Iterator[Event]:
            transfer.run(show, offline=self.session.offline)
            return iter(())

        self._work(job)

    async def race(self) -> None:
        """The last question in two lanes; nothing of it is kept."""
        dense, mine = lanes(self.options)
        widget, one, two = Race(), Lane("dense"), Lane(self.options.policy.label)
        await self._conversation.mount(widget)
        self._race = (widget, one, two)
        self._asked = ""
        self._work(lambda: chain(self.session.rehearse(dense), self.session.rehearse(mine)))

    def _take_race(self, event: Event) -> None:
        assert self._race is not None
        _, one, two = self._race
        lane = one if one.stats is None else two
        if isinstance(event, Started):
            self._activity = f"racing: {lane.name}"
        elif isinstance(event, ChatEvent):
            lane.add(event)
        elif isinstance(event, Done):
            lane.stats = event.stats

    # ---- keys ------------------------------------------------------------------------------------------------------

    async def action_command(self, line: str) -> None:
        """A command line, from the prompt or from a key."""
        try:
            await self._commands.run(line)
        except (AppError, OSError) as error:
            await self.tell(as_app_error(error).line, error=True)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        self._suggestions.show(self._prompt.matches(), Commands.helps())

    def action_stop(self) -> None:
        prompt = self._prompt
        if not prompt.has_focus:
            prompt.focus()
        elif self._editing is not None:
            self._editing = None
            prompt.clear()
        else:
            if self._pull is not None:
                self._pull.stop()
            self.session.cancel()

    def action_page(self, direction: int) -> None:
        conversation = self._conversation
        if direction < 0:
            conversation.scroll_page_up()
        else:
            conversation.scroll_page_down()

    def action_sidebar(self) -> None:
        """Shows the chats, or folds them away."""
        if not self._sidebar.toggle():
            self._prompt.focus()

    def search(self, words: str) -> None:
        """Looks for words in all chats."""
        self._sidebar.search(words)

    async def on_sidebar_chosen(self, message: Sidebar.Chosen) -> None:
        await self.action_command(f"/resume {message.chat}")
        self._sidebar.remove_class("-shown")
        self._prompt.focus()

    async def action_next_view(self) -> None:
        await self._panel.next_view()
        self._view_changed()

    def action_inspect(self, step: int) -> None:
        self._panel.inspect(step)

    def on_prompt_dialed(self, message: Prompt.Dialed) -> None:
        now = self.options.policy.threshold
        now = 0.7 if now is None else now
        self.set_threshold(round(min(1.0, max(0.0, now + message.direction * THRESHOLD_STEP)), 2))

    def set_threshold(self, threshold: float | None) -> None:
        """Another threshold from the next answer on."""
        self.options = replace(self.options, policy=replace(self.options.policy, threshold=threshold))
        self._refresh_figures()

    def action_editor(self) -> None:
        """The prompt in $EDITOR."""
        prompt = self._prompt
        try:
            with self.suspend():
                text = edit(prompt.text)
        except (SuspendNotSupported, OSError) as error:
            self.notify(f"no editor: {error}", severity="error")
            return
        prompt.write(text)

    async def action_quit(self) -> None:
        self.exit(OK)


def run_tui(session: Session, options: ChatOptions, personas: Mapping[str, str]) -> int:
    """Runs the screen until the user leaves; returns the exit code."""
    return ChatApp(session, options, personas).run() or OK
