"""The status line."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Size
from textual.widgets import Static

from specee.app.tui.lines import Block, wrap


class Status(Static):
    """Figures in one line, as many as fit; below, whether and why exits are on, in one or two."""

    DEFAULT_CSS = """
    Status { height: 2; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    Status.-tall { height: 3; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)
        self._lines = ("", "")
        self._shown = ""

    def show(self, lines: tuple[str, str]) -> None:
        self._lines = lines
        figures, switch = lines
        rows = [line.text.plain for line in wrap(Block(Content(switch)), max(8, self.content_size.width))]
        text = "\n".join([_fitting(figures, self.content_size), *rows[:2]])
        if text != self._shown:
            self._shown = text
            self.update(text, layout=False)
            self.set_class(len(rows) > 1, "-tall")

    def on_resize(self) -> None:
        self.show(self._lines)


def _fitting(figures: str, size: Size) -> str:
    """Those that fit whole; a narrow screen leaves out the last ones."""
    while len(figures) > size.width > 0 and " · " in figures:
        figures = figures.rpartition(" · ")[0]
    return figures
