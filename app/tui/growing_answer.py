"""The answer that is under way, at the end of the conversation, with the thought before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specee.app.chat.history.records import Turn
from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.entries import Notice
from specee.app.tui.message_header import MessageHeader
from specee.app.tui.thought_entry import ThoughtEntry
from specee.app.tui.turn_entries import note_of

if TYPE_CHECKING:
    from specee.app.tui.conversation import Conversation


class GrowingAnswer:
    """Its entries belong to the conversation, also when it is over. `text` and `thought` are what is there already."""

    def __init__(self, conversation: Conversation, text: str, thought: str) -> None:
        self._conversation = conversation
        self._answer = AnswerEntry(text)
        self._thought: ThoughtEntry | None = None
        conversation.add(MessageHeader("assistant"))
        conversation.add(self._answer)
        if thought:
            self.write_thought(thought, 0.0)
            if text:
                self.end_thought()

    def write_thought(self, text: str, seconds: float) -> None:
        """Adds text to the thought; it took so many seconds so far."""
        conversation = self._conversation
        if not (text or self._thought):
            return
        if self._thought is None:
            self._thought = ThoughtEntry(grows=True, is_open=conversation.shows_thoughts)
            conversation.entries.insert(conversation.entries.index(self._answer), self._thought)
            conversation.changed(self._thought)
        conversation.lines_changed(self._thought, self._thought.append(text, seconds))

    def end_thought(self) -> None:
        """The answer itself begins."""
        if self._thought is not None:
            self._thought.finish()
            self._conversation.lines_changed(self._thought)

    def write(self, text: str) -> None:
        """Adds text to the answer."""
        self._conversation.lines_changed(self._answer, self._answer.append(text))

    def close(self, turn: Turn | None) -> None:
        """It is over; `turn` is how it was stored."""
        if self._thought is not None:
            if turn is not None and turn.thought:
                self._thought.keep(turn.thought, turn.thought_seconds)
            self.end_thought()
        if turn is not None and turn.role == "assistant":
            if self._answer.finish(turn.content):
                self._conversation.lines_changed(self._answer)
            if note := note_of(turn):
                self._conversation.add(Notice(note))
