"""The end of the answer, coloured by the layers that its tokens used."""

from __future__ import annotations

from rich.cells import cell_len

from specee.app.tui.gauge import TokenColumn
from specee.app.tui.views.base import PLAIN, DepthView, Row, merged


class TokenColours(DepthView):
    """Tokens that skipped layers are green; without colours, blocks under each line are as high as the layers used."""

    CAPTION = "the end of the answer; green tokens skipped layers, dim ones are not verified yet"

    def __init__(self) -> None:
        super().__init__()
        self._answer: list[TokenColumn] = []
        self._starts: list[int] = []

    def rows(self) -> list[Row]:
        fit = max(1, self.content_size.height // (2 if self.plain else 1))
        rows: list[Row] = []
        for row in self._lines(max(8, self.content_size.width), fit):
            rows.append(merged((text, self.style(column)) for text, column in row))
            if self.plain:
                rows.append([("".join(self.block(column.layer) * cell_len(text) for text, column in row), PLAIN)])
        return rows

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
