"""What comes from the session, onto the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specee.app.engine.client import Event, Silence
from specee.app.engine.protocol import ChatEvent, Done, Progress, PromptProgress, Started
from specee.app.tui.race import Race
from specee.app.tui.state import status_lines

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

PANEL_TICKS = 2  # pictures and figures are drawn at every second tick
MAKE_ROOM = "/drop leaves out the oldest turns, /summarize sums them up, /ctx N gives more room"


class Answering:
    """Takes events; what they change is drawn by `tick`, a few times a second, or at once by `refresh`."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self.activity = "starting"
        self.growing = ""
        """The answer so far."""
        self.race: Race | None = None
        self._pending = ""
        self._stale = True  # the figures on the screen
        self._ticks = 0

    def begin(self, text: str = "") -> None:
        """An answer is asked for; `text` is what there is of it."""
        self.growing, self.activity = text, "answering"
        self.refresh()

    def end(self) -> None:
        """The session is free again."""
        self.race, self.activity = None, ""

    def take(self, event: Event) -> None:
        """One event."""
        app, self._stale = self._app, True
        gauge = app.panel.gauge
        if isinstance(event, Progress):
            share = "" if event.fraction is None else f" {event.fraction:.0%}"
            self.activity = event.what + share
        elif isinstance(event, PromptProgress):
            self.activity = f"reading {event.done} of {event.total}"
        elif isinstance(event, Silence):
            self.activity = f"no sign of the engine for {event.seconds:.0f} s"
            app.tell(f"{self.activity}: it computes, or hangs; /restart ends it, the conversation is kept")
        elif self.race is not None:
            self._take_race(self.race, event)
        elif isinstance(event, ChatEvent):
            gauge.add(event)
            if event.state == "verified":
                self._pending += event.text
        elif isinstance(event, Started):
            self.activity = "answering"
            gauge.begin(event.policy, event.policy_reason, event.dense_rate)
            app.conversation.open_answer(self.growing)
        elif isinstance(event, Done):
            gauge.finish(event.stats, app.options.policy.threshold)
            if event.stats.stop_reason == "window":
                app.tell(f"the window is full: {MAKE_ROOM}; then /continue")

    def _take_race(self, race: Race, event: Event) -> None:
        lane = race.running
        if isinstance(event, Started):
            self.activity = f"racing: {lane.name}"
        elif isinstance(event, ChatEvent):
            lane.add(event)
        elif isinstance(event, Done):
            lane.stats = event.stats

    @property
    def text(self) -> str:
        """The answer so far, with what is not on the screen yet."""
        return self.growing + self._pending

    def tick(self) -> None:
        """Shows the words that came meanwhile, and now and then the figures."""
        self.write()
        self._ticks += 1
        if self._stale and self._ticks % PANEL_TICKS == 0:
            self.refresh()

    def write(self) -> None:
        """Shows the words that came meanwhile."""
        if self._pending:
            text, self._pending = self._pending, ""
            self.growing += text
            self._app.conversation.write(text)

    def refresh(self) -> None:
        """Draws the picture and the figures as they are now."""
        self._stale = False
        app, info = self._app, self._app.session.info
        app.panel.draw(info.n_layers if info else 1, app.options.policy.threshold)
        used, policy = app.session.context_tokens, app.options.policy.label
        app.status.show(status_lines(app.panel.gauge, info, self.activity, used, policy))
        if self.race is not None:
            app.conversation.changed(self.race)
