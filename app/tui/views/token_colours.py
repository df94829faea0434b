"""The end of the answer, coloured by what drafted its tokens, or by the layers that they used."""

from __future__ import annotations

from rich.cells import cell_len

from specee.app.tui.drafters import source
from specee.app.tui.gauge import TokenColumn
from specee.app.tui.views.base import PLAIN, DepthView, Row, merged


class TokenColours(DepthView):
    """Its lines, over one that says what the colours mean.

    Without colours, letters under each line stand for what drafted a token, or blocks are as high as the layers used.
    """

    CAPTION = "the end of the answer; drafted tokens, or those that skipped layers, are coloured"
    DEFAULT_CSS = """
    TokenColours { height: 5; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._answer: list[TokenColumn] = []
        self._starts: list[int] = []

    def rows(self) -> list[Row]:
        fit = max(1, (self.content_size.height - 1) // (2 if self.plain else 1))
        rows: list[Row] = []
        lines = self._lines(max(8, self.content_size.width), fit)
        for line in lines:
            rows.append(merged((text, self.style(column)) for text, column in line))
            if self.plain:
                rows.append([("".join(self._mark(column) * cell_len(text) for text, column in line), PLAIN)])
        if self.plain and not self.gauge.drafts:
            rows.append([("height of the blocks: layers used", PLAIN)])
        elif self.gauge.answer:
            rows.append(self.legend((column for line in lines for _, column in line), "tokens:"))
        return rows

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
