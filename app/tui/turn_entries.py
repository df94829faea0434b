"""Stored turns as entries of the conversation."""

from __future__ import annotations

from specee.app.chat.history.records import Turn
from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.entries import Entry, Notice, QuestionEntry
from specee.app.tui.message_header import MessageHeader
from specee.app.tui.thought_entry import ThoughtEntry

STATES = {"interrupted": "interrupted: /continue goes on", "stopped": "stopped: /continue goes on"}


def entries_of(turn: Turn, *, shows_thoughts: bool = False) -> list[Entry]:
    """A turn, with notices about it."""
    entries: list[Entry] = []
    if turn.cut is not None:
        entries.append(Notice("── the model does not see what stands above any more ──"))
        if turn.cut:
            entries.append(Notice(f"it sees this summary instead: {turn.cut}"))
    entries.append(MessageHeader(turn.role, turn))
    if turn.thought:
        entries.append(ThoughtEntry(turn.thought, turn.thought_seconds, is_open=shows_thoughts))
    if turn.role == "user":
        entries.append(QuestionEntry(turn.content))
    else:
        entries.append(AnswerEntry(turn.content, is_over=True))
    if turn.attached:
        entries.append(Notice("sent with the text of the files that it names"))
    if note := note_of(turn):
        entries.append(Notice(note))
    return entries


def note_of(turn: Turn) -> str:
    """A turn's state, where there is something to know."""
    return STATES.get(turn.state, "") if turn.role == "assistant" else ""
