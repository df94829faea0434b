"""The base of all views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.events import Click
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from specee.app.formatting import visible
from specee.app.tui.drafters import in_order, source, variable
from specee.app.tui.gauge import Gauge, TokenColumn

BLOCKS = " ▁▂▃▄▅▆▇█"
EXIT, FULL, UNVERIFIED = Style(color="green"), Style(color="blue"), Style(dim=True)
PLAIN, DIM, CHOSEN = Style(), Style(dim=True), Style(reverse=True)
TITLE_STYLE = Style(bold=True)

Row = list[tuple[str, Style]]
"""One line of a view: runs of text with their styles."""


class TokenChosen(Message):
    """The user chose a token of the last answer, which its gauge has now."""


class DepthView(Widget):
    """Draws a gauge. `show` is called a few times a second, and only for the view on the screen.

    It draws lines itself: markup and wrapping would cost several times as much, and time that the screen needs is taken
    from the engine.
    """

    CAPTION: ClassVar[str]
    """What the view shows, for /help."""
    TITLE: ClassVar[str]
    LEAST_TITLED = 5
    """Lines from which on one of them is a title."""

    DEFAULT_CSS = """
    DepthView { height: 5; width: 1fr; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.gauge, self.n_layers = Gauge(), 1
        self.n_lines = 1
        """Lines below the title."""
        self._rows: list[Row] = []
        self._theme = ""  # that the colours of drafters are of
        self._colours: dict[str, Style] = {}

    def show(self, gauge: Gauge, n_layers: int) -> None:
        """Draws this gauge from now on; only lines that changed are drawn again."""
        self.gauge, self.n_layers = gauge, max(1, n_layers)
        if not self.content_size.width:
            return
        titled = self.content_size.height >= self.LEAST_TITLED and self.has_title()
        self.n_lines = max(1, self.content_size.height - titled)
        title: list[Row] = [[(self.TITLE, TITLE_STYLE), (f": {self.sentence()}", DIM)]] if titled else []
        before, self._rows = self._rows, [cut(row, self.content_size.width) for row in (*title, *self.rows())]
        width = self.size.width
        for y in range(max(len(before), len(self._rows))):
            if before[y : y + 1] != self._rows[y : y + 1]:
                self.refresh(Region(0, y, width, 1))

    def rows(self) -> list[Row]:
        """The lines of the view below its title, at the present size."""
        raise NotImplementedError

    def sentence(self) -> str:
        """What it shows now, behind its title."""
        raise NotImplementedError

    def has_title(self) -> bool:
        """Whether there is something to name."""
        return True

    def token_at(self, x: int, y: int) -> TokenColumn | None:
        """The token in a cell below the title; None where there is none that can be chosen."""
        return None

    def on_click(self, event: Click) -> None:
        """Chooses a token."""
        at = event.get_content_offset(self)
        if at is None:
            return
        column = self.token_at(at.x, at.y - (self.content_size.height - self.n_lines))
        for index, token in enumerate(reversed(self.gauge.answer), 1):
            if token is column:
                self.gauge.cursor = -index
                self.show(self.gauge, self.n_layers)
                self.post_message(TokenChosen())
                return

    @property
    def chosen(self) -> TokenColumn | None:
        """The token that the user chose; None: none, or the last one."""
        tokens, cursor = self.gauge.answer, self.gauge.cursor
        return tokens[cursor] if -len(tokens) <= cursor < -1 else None

    def about_chosen(self) -> Row | None:
        """A line about the token that the user chose."""
        if (column := self.chosen) is None:
            return None
        place = len(self.gauge.answer) + self.gauge.cursor + 1
        return [(f"token {place} {quoted(column.text)}", PLAIN), (f": {origin(column, self.n_layers)}", DIM)]

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


def quoted(text: str) -> str:
    """The text of a token, with its spaces and line ends."""
    return f"“{visible(text).replace(chr(10), '⏎')}”"


def origin(column: TokenColumn, n_layers: int) -> str:
    """Where a token comes from, and what its step gave or the layers that it used."""
    if column.drafter is None and column.layer < n_layers:
        return f"used {column.layer} of {n_layers} layers"
    chosen = f"drafted from {source(column.drafter).name}" if column.drafter else "chosen by the model itself"
    count = column.step.tokens
    return f"{chosen}; its step gave {count} token{'s' * (count != 1)}"


def cut(row: Row, width: int) -> Row:
    """A row that ends with a mark where it is too wide."""
    if sum(cell_len(text) for text, _ in row) <= width:
        return row
    kept: Row = []
    room = width - 1
    for text, style in row:
        if cell_len(text) > room:
            return [*kept, (f"{set_cell_size(text, room).rstrip()}…", style)]
        kept.append((text, style))
        room -= cell_len(text)
    return kept


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
