"""The chat screen. A thread talks to the session and posts messages; only their handlers touch widgets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Protocol

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownStream
from textual.worker import get_current_worker

from specee.app.engine_client import Event, Silence
from specee.app.errors import OK, AppError, as_app_error
from specee.app.options import ChatOptions, PolicyChoice
from specee.app.protocol import ChatEvent, Done, ModelInfo, Progress, PromptProgress, Started
from specee.app.tui.state import Gauge, status_lines
from specee.app.tui.widgets import Notice, Prompt, Said, Skyline, Status

FLUSH_SECONDS = 0.1
HINTS = "Enter sends · Ctrl+J new line · Esc stops · Ctrl+C quits\n/new conversation · /policy NAME · /quit"


class ChatSession(Protocol):
    """What the screen needs of a session."""

    @property
    def info(self) -> ModelInfo | None: ...

    def open(self) -> Iterator[Progress | Silence]: ...

    def send(self, text: str, options: ChatOptions) -> Iterator[Event]: ...

    def cancel(self) -> None: ...

    def new(self) -> None: ...

    def close(self) -> None: ...


class EventsReady(Message):
    """There is something in the buffer. One in the queue is enough, however many tokens come."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, EventsReady)


class Ended(Message):
    """The session is free again, after an error or not."""

    def __init__(self, error: AppError | None = None) -> None:
        super().__init__()
        self.error = error


class Buffer:
    """Events on their way from the session's thread to the screen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)

    def drain(self) -> list[Event]:
        with self._lock:
            events, self._events = self._events, []
        return events


class ChatApp(App[int]):
    """Conversation, skyline, figures, prompt."""

    TITLE = "specee-chat"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #conversation { height: 1fr; padding: 0 1; }
    #conversation Markdown { margin: 0; padding: 0 1; }
    Skyline, Status { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q", "quit", "Quit", priority=True),
        Binding("escape", "stop", "Stop", priority=True),
        Binding("pageup", "page(-1)", "Up", priority=True),
        Binding("pagedown", "page(1)", "Down", priority=True),
    ]

    def __init__(self, session: ChatSession, options: ChatOptions) -> None:
        super().__init__()
        self._session, self._options = session, options
        self._gauge = Gauge()
        self._buffer = Buffer()
        self._activity = "starting"
        self._busy = False
        self._waiting: str | None = None  # sent before the model was loaded
        self._pending_text = ""
        self._stale = True  # the figures on the screen
        self._stream: MarkdownStream | None = None

    @property
    def busy(self) -> bool:
        """Whether the session loads or answers."""
        return self._busy

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="conversation", can_focus=False):
            yield Notice(HINTS)
        yield Skyline()
        yield Status()
        yield Prompt()

    def on_mount(self) -> None:
        self.query_one("#conversation", VerticalScroll).anchor()
        self.query_one(Prompt).focus()
        self.set_interval(FLUSH_SECONDS, self._show_pending)
        self._work(None)

    async def on_unmount(self) -> None:
        # its thread must end before the event loop can
        await asyncio.to_thread(self._session.close)

    # ---- the session's thread --------------------------------------------------------------------------------------

    def _work(self, text: str | None) -> None:
        """Lets a thread open the session (None) or send a text; at most one at a time."""
        self._busy = True
        self.run_worker(lambda: self._talk(text), thread=True, exit_on_error=False)

    def _talk(self, text: str | None) -> None:
        error: AppError | None = None
        worker = get_current_worker()
        try:
            events = self._session.open() if text is None else self._session.send(text, self._options)
            for event in events:
                self._buffer.put(event)
                self.post_message(EventsReady())
                if worker.is_cancelled:
                    return
        except Exception as caught:  # whatever it is, the user gets a line and the screen stays
            error = as_app_error(caught)
        self.post_message(Ended(error))

    # ---- what it posts ---------------------------------------------------------------------------------------------

    async def on_events_ready(self, message: EventsReady) -> None:
        for event in self._buffer.drain():
            await self._take(event)

    async def on_ended(self, message: Ended) -> None:
        for event in self._buffer.drain():
            await self._take(event)
        await self._close_answer()
        self._busy = False
        self._activity = ""
        if message.error is not None:
            self._activity = "" if self._session.info else "not running"
            await self._add(Notice(message.error.line, error=True))
        self._refresh_figures()
        if self._waiting is not None and message.error is None:
            text, self._waiting = self._waiting, None
            self._work(text)
        self._waiting = None

    async def _take(self, event: Event) -> None:
        self._stale = True
        if isinstance(event, Progress):
            share = "" if event.fraction is None else f" {event.fraction:.0%}"
            self._activity = event.what + share
        elif isinstance(event, PromptProgress):
            self._activity = f"reading {event.done} of {event.total}"
        elif isinstance(event, Started):
            self._activity = "answering"
            self._gauge.begin(event.policy, event.policy_reason, event.dense_rate)
            await self._open_answer()
        elif isinstance(event, ChatEvent):
            self._gauge.add(event)
            if event.state == "verified":
                self._pending_text += event.text
        elif isinstance(event, Done):
            self._gauge.finish(event.stats)
            if event.stats.stop_reason == "window":
                await self._show_pending()
                await self._add(Notice("the window is full; /new begins a new conversation"))

    # ---- the answer on the screen ----------------------------------------------------------------------------------

    async def _add(self, widget: Notice | Said | Markdown) -> None:
        await self.query_one("#conversation", VerticalScroll).mount(widget)

    async def _open_answer(self) -> None:
        answer = Markdown(open_links=False)
        await self._add(answer)
        self._stream = Markdown.get_stream(answer)

    async def _close_answer(self) -> None:
        await self._show_pending()
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None

    async def _show_pending(self) -> None:
        """Ten times a second: show what came meanwhile."""
        if self._pending_text and self._stream is not None:
            text, self._pending_text = self._pending_text, ""
            await self._stream.write(text)
        if self._stale:
            self._refresh_figures()

    def _refresh_figures(self) -> None:
        self._stale = False
        info = self._session.info
        self.query_one(Skyline).show(self._gauge.columns, info.n_layers if info else 1)
        self.query_one(Status).show(status_lines(self._gauge, info, self._activity))

    # ---- what the user does ----------------------------------------------------------------------------------------

    async def on_prompt_sent(self, message: Prompt.Sent) -> None:
        if message.text.startswith("/"):
            await self._command(message.text)
            return
        if self._busy and self._session.info is not None:
            self.query_one(Prompt).text = message.text  # one at a time: it stays where it was
            self.notify("still answering; Esc stops", timeout=2)
            return
        await self._add(Said(message.text))
        if self._busy:
            self._waiting = message.text
        else:
            self._work(message.text)

    async def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        if name == "/quit":
            await self.action_quit()
        elif name == "/new":
            if self._busy:
                self.notify("still busy; Esc stops", timeout=2)
                return
            self._session.new()
            await self.query_one("#conversation", VerticalScroll).remove_children()
            await self._add(Notice("a new conversation"))
        elif name == "/policy":
            await self._set_policy(argument.strip())
        else:
            await self._add(Notice(f"{name} is no command; there are /new, /policy NAME and /quit", error=True))

    async def _set_policy(self, spec: str) -> None:
        try:
            choice = PolicyChoice.parse(spec or "auto")
        except AppError as error:
            await self._add(Notice(error.line, error=True))
            return
        self._options = replace(self._options, policy=choice)
        await self._add(Notice(f"policy {choice.label} from the next answer on"))

    def action_stop(self) -> None:
        self._session.cancel()

    def action_page(self, direction: int) -> None:
        conversation = self.query_one("#conversation", VerticalScroll)
        if direction < 0:
            conversation.scroll_page_up()
        else:
            conversation.scroll_page_down()

    async def action_quit(self) -> None:
        self.exit(OK)


def run_tui(session: ChatSession, options: ChatOptions) -> int:
    """Runs the screen until the user leaves; returns the exit code."""
    return ChatApp(session, options).run() or OK
