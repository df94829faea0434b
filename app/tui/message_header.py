"""The line above each message: who wrote it, when and how fast, which branch it is, and what can be done with it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from textual.content import Content, Span
from textual.style import Style

from specee.app.chat.history.records import Role, Turn
from specee.app.formatting import moment
from specee.app.tui.entries import Entry
from specee.app.tui.wrapping import HEADER, Line

WHO: dict[Role, str] = {"user": "You", "assistant": "Answer"}
EARLIER, LATER = "\u2039", "\u203a"  # single angle quotation marks: a cell each, in every terminal
ACTION = "message"
"""Name of the meta datum of a style that says what a click does."""


@dataclass(frozen=True)
class Action:
    """What can be done with a message. `key`: the one that does it, underlined in its name."""

    name: str
    key: str
    help: str


COPY = Action("copy", "c", "Copy it")
EDIT = Action("edit", "e", "Edit a question; the old one stays as a branch")
RETRY = Action("retry", "r", "Answer again; the old answer stays as a branch")
BRANCH = Action("branch", "b", "Let the next question follow this answer")
CONTINUE = Action("continue", "n", "Let the last answer go on")
DELETE = Action("delete", "d", "Delete it and what follows, after a question")
ACTIONS = (COPY, EDIT, RETRY, BRANCH, CONTINUE, DELETE)
PREVIOUS, NEXT = "previous", "next"
"""Actions of the arrows around the number of a branch."""


class MessageHeader(Entry):
    """Belongs to the entries below it. `turn` is the message as it is stored, None until it is."""

    gap = 0

    def __init__(self, role: Role, turn: Turn | None = None, *, is_last: bool = False) -> None:
        super().__init__()
        self.role, self.turn, self.is_last = role, turn, is_last
        self.is_active = False
        """Whether the user points at it, so that it shows what can be done."""
        self._begun = time.time()

    @property
    def text(self) -> str:
        return ""

    @property
    def actions(self) -> tuple[Action, ...]:
        """What can be done with this message."""
        if self.turn is None:
            return ()
        if self.role == "user":
            return COPY, EDIT, RETRY, DELETE
        return COPY, RETRY, BRANCH, *((CONTINUE,) if self.is_last else ()), DELETE

    def lay_out(self, width: int, *, plain: bool) -> None:
        buttons = [_button(action) for action in self.actions] if self.is_active else []
        for gap in ("  ", " "):
            right = Content(gap).join(["", *buttons])
            text = self._facts(max(0, width - right.cell_length)) + right
            if text.cell_length <= width:
                break
        self.lines = [Line(text.truncate(width), style=HEADER)]

    def _facts(self, room: int) -> Content:
        """As many as fit: the time is the first to go, then the rate."""
        turn, who = self.turn, Content.styled(WHO[self.role], "bold reverse" if self.is_active else "bold")
        created = self._begun if turn is None else turn.created
        when = [Content(moment(created, time.time()))] if created else []
        rate = turn.stats.get("tokens_per_second") if turn is not None and turn.stats else None
        speed = [Content(f"{rate:.1f} tokens/s")] if rate else []
        for shown in ([*when, *speed], speed, []):
            facts = Content(" · ").join([who, *shown, *self._branch(short=not shown)])
            if facts.cell_length <= room:
                break
        return facts

    def _branch(self, *, short: bool) -> list[Content]:
        if self.turn is None or self.turn.siblings < 2:
            return []
        place = f" {'' if short else 'branch '}{self.turn.place} of {self.turn.siblings} "
        return [Content.assemble(_link(EARLIER, PREVIOUS), place, _link(LATER, NEXT))]


def _link(text: str, action: str) -> Content:
    return Content(text, spans=[Span(0, len(text), "bold"), Span(0, len(text), Style.from_meta({ACTION: action}))])


def _button(action: Action) -> Content:
    at = action.name.index(action.key)
    meta = Style.from_meta({ACTION: action.name})
    return Content(action.name, spans=[Span(at, at + 1, "bold underline"), Span(0, len(action.name), meta)])
