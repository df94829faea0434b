"""The messages of the conversation that the user points at: one with keys, one with the mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.entries import Entry
from specee.app.tui.message_header import NEXT, PREVIOUS, MessageHeader

if TYPE_CHECKING:
    from specee.app.tui.conversation import Conversation


class MessageCursor:
    """Messages are told by their headers."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.selected: MessageHeader | None = None
        """With keys."""
        self._hovered: MessageHeader | None = None

    def forget(self) -> None:
        """All messages are others now."""
        self.selected = self._hovered = None
        self._conversation.can_focus = False
        if self._conversation.has_focus:
            self._conversation.post_message(self._conversation.Left())

    def move(self, step: int) -> None:
        """Goes to the message before or after; from the prompt, the last one is the first to come."""
        headers = self._conversation.headers
        if self.selected is None:
            self.select(headers[-1] if headers and step < 0 else None)
            return
        at = headers.index(self.selected)
        if at + step < 0 and self._conversation.show_earlier():
            headers = self._conversation.headers
            at = headers.index(self.selected)
        self.select(headers[max(0, at + step)] if at + step < len(headers) else None)

    def select(self, header: MessageHeader | None) -> None:
        """Goes to a message, or back to the prompt."""
        conversation = self._conversation
        before, self.selected = self.selected, header
        conversation.can_focus = header is not None
        if header is not None:
            conversation.screen.set_focus(conversation, scroll_visible=False)  # at once: more keys may be there
            conversation.show_entry(header)
        elif conversation.has_focus:
            conversation.post_message(conversation.Left())
        self._draw(before, header)

    def hover(self, entry: Entry | None) -> None:
        """The mouse is over an entry."""
        header = self._header_of(entry)
        if header is not self._hovered:
            before, self._hovered = self._hovered, header
            self._draw(before, header)

    def act(self, header: MessageHeader | None, action: str) -> None:
        """Does something with a message, if that can be done with it."""
        if header is None or header.turn is None:
            return
        if action in (PREVIOUS, NEXT) or action in (possible.name for possible in header.actions):
            self._conversation.post_message(self._conversation.Acted(action, header.turn))

    def answer(self) -> AnswerEntry | None:
        """What is below the header that was selected with keys, where it is an answer."""
        for entry in self._conversation.entries:
            if isinstance(entry, AnswerEntry) and self._header_of(entry) is self.selected:
                return entry
        return None

    def _header_of(self, entry: Entry | None) -> MessageHeader | None:
        found = None
        for each in self._conversation.entries if entry is not None else ():
            if isinstance(each, MessageHeader):
                found = each
            if each is entry:
                return found
        return None

    def _draw(self, *headers: MessageHeader | None) -> None:
        for header in headers:
            if header is not None:
                header.is_active = header in (self.selected, self._hovered)
                self._conversation.draw_header(header)
