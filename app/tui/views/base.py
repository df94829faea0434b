"""The base of all views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from specee.app.tui.drafters import in_order, source, variable
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
        self._theme = ""  # that the colours of drafters are of
        self._colours: dict[str, Style] = {}

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
        """A drafted token has its drafter's colour; green skipped layers, blue used all, dim is not verified yet."""
        if column.drafter is not None:
            return self.drafter_style(column.drafter)
        style = FULL if column.layer >= self.n_layers else EXIT
        return style if column.verified else style + UNVERIFIED

    def drafter_style(self, drafter: str) -> Style:
        """The colour of a drafter in the theme."""
        if self._theme != self.app.theme:
            self._theme, self._colours = self.app.theme, {}
        name = variable(drafter)
        if name not in self._colours:
            self._colours[name] = Style(color=Color.parse(self.app.theme_variables[name]).rich_color)
        return self._colours[name]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self._colours and self._theme != self.app.theme:
            self.show(self.gauge, self.n_layers)

    def legend(self, columns: Iterable[TokenColumn], head: str) -> Row:
        """`head`, then what the colours of these columns mean, or the letters in their place; as much as fits."""
        entries = [("█", FULL, "model" if self.gauge.drafts else "all layers")]
        if self.gauge.drafts:
            for drafter in in_order(column.drafter for column in columns):
                found = source(drafter)
                entries.append((found.letter if self.plain else "█", self.drafter_style(drafter), found.name))
        else:
            unverified = ("▒", PLAIN) if self.plain else ("█", FULL + UNVERIFIED)
            skipped = [] if self.plain else [("█", EXIT, "some skipped")]
            entries = [*([] if self.plain else entries), *skipped, (*unverified, "not verified yet")]
        row: Row = [(head, DIM)]
        room = self.content_size.width - len(head)
        for mark, style, name in entries:
            room -= len(mark) + len(name) + 2
            if room < 0:
                break
            row += [(f" {mark}", style), (f" {name}", DIM)]
        return row

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
