"""The parts of the screen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static, TextArea

from specee.app.tui.state import Column

BLOCKS = " ▁▂▃▄▅▆▇█"


class Skyline(Widget):
    """One column per token, as high as the layer where its word was chosen; unverified ones are dim."""

    DEFAULT_CSS = """
    Skyline { height: 4; width: 1fr; }
    """
    EXIT, FULL = Style(color="green"), Style(color="blue")

    def __init__(self) -> None:
        super().__init__()
        self._columns: Sequence[Column] = ()
        self._n_layers = 1

    def show(self, columns: Sequence[Column], n_layers: int) -> None:
        """Shows the last columns that fit."""
        self._columns, self._n_layers = columns, max(1, n_layers)
        self.refresh()

    def render(self) -> Text:
        width, height = max(1, self.size.width), max(1, self.size.height)
        shown = list(islice(self._columns, max(0, len(self._columns) - width), None))
        eighths = [round(c.layer * height * 8 / self._n_layers) for c in shown]
        picture = Text(no_wrap=True, overflow="crop")
        for row in reversed(range(height)):
            for column, high in zip(shown, eighths, strict=True):
                picture.append(BLOCKS[min(8, max(0, high - 8 * row))], self._style(column))
            if row:
                picture.append("\n")
        return picture

    def _style(self, column: Column) -> Style:
        style = self.FULL if column.layer >= self._n_layers else self.EXIT
        return style if column.verified else style + Style(dim=True)


class Status(Static):
    """Two lines of figures."""

    DEFAULT_CSS = """
    Status { height: 2; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)

    def show(self, lines: tuple[str, str]) -> None:
        self.update("\n".join(lines))


class Prompt(TextArea):
    """Where one writes: Enter sends, Ctrl+J begins a new line."""

    DEFAULT_CSS = """
    Prompt { height: auto; min-height: 3; max-height: 8; }
    """

    class Sent(Message):
        """The user sent a text."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(placeholder="Ask something", show_line_numbers=False, soft_wrap=True, compact=False)

    async def _on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "ctrl+j", "shift+enter"):
            event.stop()
            event.prevent_default()
            if event.key == "enter":
                self._send()
            else:
                self.insert("\n")
            return
        await super()._on_key(event)

    def _send(self) -> None:
        text = self.text.strip()
        if text:
            self.post_message(self.Sent(text))
            self.clear()


class Said(Static):
    """What the user said, as it is."""

    DEFAULT_CSS = """
    Said { margin: 1 0 0 0; padding: 0 1; color: $accent; border-left: thick $accent; }
    """

    def __init__(self, text: str) -> None:
        super().__init__(text, markup=False)


class Notice(Static):
    """A word from the program: hints and errors."""

    DEFAULT_CSS = """
    Notice { margin: 1 0 0 0; color: $text-muted; }
    Notice.error { color: $text-error; }
    """

    def __init__(self, text: str, *, error: bool = False) -> None:
        super().__init__(text, markup=False, classes="error" if error else None)
