"""Shows the session's events: activity, the growing answer, figures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from specee.app.chat.advice import how_to_make_room
from specee.app.chat.stats_line import about_thoughts
from specee.app.engine.client import Event, Silence
from specee.app.engine.protocol import ChatEvent, Done, Notice, Progress, PromptProgress, Started
from specee.app.tui.race import RaceEntry
from specee.app.tui.status import status_lines

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

PANEL_TICKS = 2  # views and figures are drawn at every second tick


class EventDisplay:
    """Handles events; what they change is drawn by `tick`, a few times a second, or at once by `refresh`."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self.activity = "starting"
        self.shown = ""
        """The part of the growing answer that is on the screen."""
        self.race: RaceEntry | None = None
        self._pending = ""  # the part that is not
        self._thought = ""  # before the answer, when an earlier one goes on
        self._pending_thought = ""
        self._thinks_since: float | None = None
        self._told: set[tuple[str, str]] = set()  # models that cannot be told to think, or not to
        self._stale = True  # the figures on the screen
        self._ticks = 0

    def begin(self, text: str = "", thought: str = "") -> None:
        """An answer is asked for; `text` and `thought` are its beginning, when an earlier answer goes on."""
        self.shown, self._thought, self.activity = text, thought, "answering"
        self._pending_thought, self._thinks_since = "", None
        self.refresh()

    def end(self) -> None:
        """The session is free again."""
        self.race, self.activity = None, ""

    def handle(self, event: Event) -> None:
        """Takes in what an event says; most of it is drawn by the next `tick`."""
        app, self._stale = self._app, True
        gauge = app.panel.gauge
        if isinstance(event, Progress):
            share = "" if event.fraction is None else f" {event.fraction:.0%}"
            self.activity = event.what + share
        elif isinstance(event, PromptProgress):
            self.activity = f"reading the prompt, {event.done} of {event.total} tokens"
        elif isinstance(event, Notice):
            app.show_notice(event.text)
        elif isinstance(event, Silence):
            self.activity = f"the model has been silent for {event.seconds:.0f} s"
            app.show_notice(f"{self.activity}: it is slow, or it hangs. /restart starts it again; the chat is kept")
        elif self.race is not None:
            self._handle_race(self.race, event)
        elif isinstance(event, ChatEvent):
            gauge.add(event)
            self._pending += event.said
            if event.state == "verified" and event.channel == "thought":
                self.activity = "thinking"
                self._thinks_since = self._thinks_since or time.monotonic()
                self._pending_thought += event.text
            elif event.said and self.activity == "thinking":
                self.activity = "answering"
        elif isinstance(event, Started):
            self.activity = "answering"
            gauge.begin(event.policy, event.policy_reason, event.dense_rate, event.stock_rate)
            app.conversation.open_answer(self.shown, self._thought)
            app.conversation.set_turns(app.session.branch)
            self._tell_of_thinking()
        elif isinstance(event, Done):
            gauge.finish(event.stats, app.options.policy.threshold)
            if (known := about_thoughts(event.stats)) is not None:
                app.show_notice(known)
            if event.stats.stop_reason == "window":
                app.show_notice(f"the context window is full: {how_to_make_room(app.session.info)}; then /continue")

    def _tell_of_thinking(self) -> None:
        """Once of each model that it cannot be told what the user chose."""
        info, think = self._app.session.info, self._app.options.think
        if info is None or (info.name, think) in self._told:
            return
        self._told.add((info.name, think))
        if (why := info.cannot_think(think)) is not None:
            self._app.show_notice(why)

    def _handle_race(self, race: RaceEntry, event: Event) -> None:
        run = race.running
        if isinstance(event, Started):
            self.activity = f"answering with policy {run.name}"
        elif isinstance(event, ChatEvent):
            run.add(event)
        elif isinstance(event, Done):
            run.stats = event.stats

    def _activities(self) -> str:
        """What the session does, and how far a download is: in full where nothing else is under way."""
        pull = self._app.controller.pull
        if pull is None:
            return self.activity
        if not self.activity:
            return pull.activity
        return f"{self.activity} · {pull.name} {pull.share or 0.0:.0%}"

    @property
    def text(self) -> str:
        """The answer so far, with the part that is not on the screen yet."""
        return self.shown + self._pending

    def tick(self) -> None:
        """Shows new text, and at every second tick the figures."""
        self.write()
        self._ticks += 1
        if self._stale and self._ticks % PANEL_TICKS == 0:
            self.refresh()

    def write(self) -> None:
        """Shows new text."""
        answer = self._app.conversation.answer
        if self._thinks_since is not None:
            text, self._pending_thought = self._pending_thought, ""
            if answer is not None:
                answer.write_thought(text, time.monotonic() - self._thinks_since)
        if self._pending and self._thinks_since is not None:
            self._thinks_since = None
            if answer is not None:
                answer.end_thought()
        if self._pending:
            text, self._pending = self._pending, ""
            self.shown += text
            if answer is not None:
                answer.write(text)

    def refresh(self) -> None:
        """Draws the view and the figures as they are now."""
        self._stale = False
        app, info = self._app, self._app.session.info
        app.panel.draw(info.n_layers if info else 1, app.options.policy.threshold)
        used, policy = app.session.context_tokens, app.options.policy.label
        app.status.show(status_lines(app.panel.gauge, info, self._activities(), used, policy))
        if self.race is not None:
            app.conversation.changed(self.race)
