"""The base of all views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from specee.app.tui.gauge import Gauge, TokenColumn

BLOCKS = " ▁▂▃▄▅▆▇█"
EXIT, FULL, UNVERIFIED = Style(color="green"), Style(color="blue"), Style(dim=True)
PLAIN, DIM = Style(), Style(dim=True)

Row = list[tuple[str, Style]]
"""One line of a view: runs of text with their styles."""


class DepthView(Widget):
    """Draws a gauge. `show` is called a few times a second, and only for the view on the screen.

    It draws lines itself: markup and wrapping would cost several times as much, and time that the screen needs is taken
    from the engine.
    """

    CAPTION: ClassVar[str]
    """What the view shows, for /help."""

    DEFAULT_CSS = """
    DepthView { height: 4; width: 1fr; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.gauge, self.n_layers = Gauge(), 1
        self._rows: list[Row] = []

    def show(self, gauge: Gauge, n_layers: int) -> None:
        """Draws this gauge from now on; only lines that changed are drawn again."""
        self.gauge, self.n_layers = gauge, max(1, n_layers)
        if not self.content_size.width:
            return
        before, self._rows = self._rows, self.rows()
        width = self.size.width
        for y in range(max(len(before), len(self._rows))):
            if before[y : y + 1] != self._rows[y : y + 1]:
                self.refresh(Region(0, y, width, 1))

    def rows(self) -> list[Row]:
        """The lines of the view, at the present size."""
        raise NotImplementedError

    def on_resize(self) -> None:
        self._rows = []
        self.show(self.gauge, self.n_layers)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        base, width = self.rich_style, self.content_size.width
        row = self._rows[y] if y < len(self._rows) else []
        return Strip([Segment(text, base + style) for text, style in row]).crop_extend(0, width, base)

    @property
    def plain(self) -> bool:
        """Whether there are no colours (NO_COLOR): then glyphs take their place."""
        return self.app.no_color

    def style(self, column: TokenColumn) -> Style:
        """Green skipped layers, blue used all of them, dim is not verified yet."""
        style = FULL if column.layer >= self.n_layers else EXIT
        return style if column.verified else style + UNVERIFIED

    def block(self, layer: int) -> str:
        """A layer as one of eight heights."""
        return BLOCKS[max(1, min(8, round(8 * layer / self.n_layers)))]


def lines(text: str, style: Style = PLAIN) -> list[Row]:
    """Text of one style as rows."""
    return [[(line, style)] for line in text.split("\n")]


def merged(cells: Iterable[tuple[str, Style]]) -> Row:
    """Cells with neighbours of the same style joined."""
    row: Row = []
    for text, style in cells:
        if row and row[-1][1] == style:
            row[-1] = (row[-1][0] + text, style)
        else:
            row.append((text, style))
    return row
