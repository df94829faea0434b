"""What a model thought before an answer: dim while it grows, then folded into one line."""

from __future__ import annotations

from textual.content import Content

from specee.app.formatting import span, thought_title, visible
from specee.app.tui.entries import FOLDED, OPEN, Entry
from specee.app.tui.wrapping import Block, Line, wrap

INDENT = Content("  ")
STYLE = "thought"


class ThoughtEntry(Entry):
    """A thought under a line that says how long it took. Text that cannot change any more is not wrapped again."""

    def __init__(self, text: str = "", seconds: float = 0.0, *, grows: bool = False, is_open: bool = False) -> None:
        super().__init__()
        self.is_open = is_open or grows
        self._text, self._seconds, self._grows = visible(text), seconds, grows
        self._keeps_open = is_open
        self._width = 0
        self._at = self._n_final = 0  # the last line of the text begins there, and so many lines stand before it

    @property
    def text(self) -> str:
        return self._text.strip()

    def lay_out(self, width: int, *, plain: bool) -> None:
        self._width = width
        self._at = 0
        self.lines = [self._head()]
        self._n_final = 1
        self._read()

    def append(self, text: str, seconds: float) -> int:
        """Adds text; returns the index of the first line that may have changed. `seconds`: that it took so far."""
        self._text += visible(text)
        first = self._n_final if span(seconds) == span(self._seconds) else 0
        self._seconds = seconds
        if self._width:
            self.lines[0] = self._head()
            self._read()
        return first

    def toggle(self, *, is_open: bool) -> None:
        """Shows the thought or only its line."""
        self.is_open = self._keeps_open = is_open
        self.lay_out(self._width, plain=False)

    def keep(self, text: str, seconds: float) -> None:
        """Text and time as they are stored; `finish` shows them."""
        self._text, self._seconds = visible(text), seconds

    def finish(self) -> None:
        """It is over, and folded unless the user wants to see it."""
        self._grows = False
        self.is_open = self._keeps_open
        self.lay_out(self._width, plain=False)

    def _head(self) -> Line:
        title = f"Thinking… {span(self._seconds)}" if self._grows else thought_title(self._seconds)
        mark = Content(OPEN if self.is_open else FOLDED)
        return Line(Content(title), mark, STYLE)

    def _read(self) -> None:
        if not self._width or not self.is_open:
            return
        del self.lines[self._n_final :]
        whole, _, rest = self._text[self._at :].rpartition("\n")
        if whole:
            self._add(whole)
            self._at, self._n_final = len(self._text) - len(rest), len(self.lines)
        if rest:
            self._add(rest)

    def _add(self, text: str) -> None:
        self.lines += wrap(Block(Content(text.expandtabs(4)), INDENT, INDENT, STYLE), self._width)
