"""The token that is chosen: in the view of the tokens, and in the text of the last answer."""

from __future__ import annotations

from specee.app.tui.conversation import Conversation
from specee.app.tui.depth_panel import DepthPanel
from specee.app.tui.token_places import TokenPlaces


class TokenChoice:
    """Keeps both the same. The view counts from the end: -1 is the last token, and none is chosen."""

    def __init__(self, panel: DepthPanel, conversation: Conversation) -> None:
        self._panel, self._conversation = panel, conversation

    def at(self, text: str, offset: int) -> None:
        """The one that this character of the last answer belongs to."""
        token = self._places(text).token_at(offset)
        if token is not None:
            self._panel.choose(token - len(self._panel.gauge.answer))
            self.mark()

    def none(self) -> None:
        self._panel.choose(-1)
        self.mark()

    def step(self, step: int) -> None:
        """The one so many further on."""
        self._panel.inspect(step)
        self.mark()

    def mark(self) -> None:
        """Shows in the answer which one is chosen in the view."""
        tokens, cursor = self._panel.gauge.answer, self._panel.gauge.cursor
        if cursor == -1 or not tokens:
            self._conversation.mark(None)
        else:
            self._conversation.mark(self._places(self._conversation.answer_text).span(len(tokens) + cursor))

    def _places(self, text: str) -> TokenPlaces:
        return TokenPlaces([column.text for column in self._panel.gauge.answer], text)
