"""The end of the answer, coloured by what drafted its tokens, or by the layers that they used."""

from __future__ import annotations

from rich.cells import cell_len

from specee.app.tui.drafters import source
from specee.app.tui.gauge import TokenColumn
from specee.app.tui.views.base import CHOSEN, PLAIN, DepthView, Row, merged


class TokenColours(DepthView):
    """Its lines, over one that says what the colours mean.

    Without colours, letters under each line stand for what drafted a token, or blocks are as high as the layers used.
    """

    CAPTION = "the end of the answer; drafted tokens, or those that skipped layers, are coloured"
    TITLE = "Tokens"
    LEAST_TITLED = 6
    DEFAULT_CSS = """
    TokenColours { height: 6; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._answer: list[TokenColumn] = []
        self._starts: list[int] = []
        self._drawn: list[list[tuple[str, TokenColumn]]] = []

    def rows(self) -> list[Row]:
        fit = max(1, (self.n_lines - 1) // (2 if self.plain else 1))
        rows: list[Row] = []
        lines = self._drawn = self._lines(max(8, self.content_size.width), fit)
        chosen = self.chosen
        for line in lines:
            rows.append(
                merged(
                    (text, self.style(token) + CHOSEN if token is chosen else self.style(token)) for text, token in line
                )
            )
            if self.plain:
                rows.append([("".join(self._mark(column) * cell_len(text) for text, column in line), PLAIN)])
        if (about := self.about_chosen()) is not None:
            rows.append(about)
        elif self.plain and not self.gauge.drafts:
            rows.append([("height of the blocks: layers used", PLAIN)])
        elif self.gauge.answer:
            rows.append(self.legend((column for line in lines for _, column in line), "tokens:"))
        return rows

    def sentence(self) -> str:
        what = "where each token comes from" if self.gauge.drafts else "the layers that each token used"
        return f"the end of the answer, {'marked' if self.plain else 'coloured'} by {what}"

    def has_title(self) -> bool:
        return bool(self.gauge.columns)

    def token_at(self, x: int, y: int) -> TokenColumn | None:
        y //= 2 if self.plain else 1
        for text, column in self._drawn[y] if 0 <= y < len(self._drawn) else ():
            if x < cell_len(text):
                return column
            x -= cell_len(text)
        return None

    def _mark(self, column: TokenColumn) -> str:
        """What stands under each cell of a token."""
        if not self.gauge.drafts:
            return self.block(column.layer)
        return source(column.drafter).letter if column.drafter is not None else " "

    def _lines(self, width: int, fit: int) -> list[list[tuple[str, TokenColumn]]]:
        """The last lines of the answer. They are broken from its beginning on: so they stay as it grows."""
        tokens = self.gauge.answer
        if tokens is not self._answer or not self._starts or self._starts[-1] > len(tokens):
            self._answer, self._starts = tokens, [0]
        rows: list[list[tuple[str, TokenColumn]]] = [[]]
        first = self._starts[max(0, len(self._starts) - fit)]
        starts = self._starts[: max(1, len(self._starts) - fit + 1)]
        room = width
        for index in range(first, len(tokens)):
            text = tokens[index].text.replace("\n", "⏎").replace("\t", " ")
            if cell_len(text) > room and rows[-1]:
                rows.append([])
                starts.append(index)
                room = width
            text = text[:width] if rows[-1] else text.lstrip(" ")[:width]
            rows[-1].append((text, tokens[index]))
            room -= cell_len(text)
        self._starts = starts
        return rows[-fit:]

    def on_resize(self) -> None:
        self._starts = []
        super().on_resize()
