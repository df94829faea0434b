"""The end of the answer once more, coloured by depth."""

from __future__ import annotations

from rich.cells import cell_len

from specee.app.tui.state import Column
from specee.app.tui.views.base import PLAIN, DepthView, Row, merged


class Lens(DepthView):
    """Words that left early are green; without colour a row of blocks under each line says how deep each one went."""

    def __init__(self) -> None:
        super().__init__()
        self._answer: list[Column] = []
        self._starts: list[int] = []

    def picture(self) -> list[Row]:
        fit = max(1, self.content_size.height // (2 if self.plain else 1))
        picture: list[Row] = []
        for row in self._words(max(8, self.content_size.width), fit):
            picture.append(merged((word, self.style(column)) for word, column in row))
            if self.plain:
                picture.append([("".join(self.block(column.layer) * cell_len(word) for word, column in row), PLAIN)])
        return picture

    def _words(self, width: int, fit: int) -> list[list[tuple[str, Column]]]:
        """The last lines of the answer: they are broken from its beginning on, so that they stay as they are."""
        tokens = self.gauge.answer
        if tokens is not self._answer or not self._starts or self._starts[-1] > len(tokens):
            self._answer, self._starts = tokens, [0]
        rows: list[list[tuple[str, Column]]] = [[]]
        first = self._starts[max(0, len(self._starts) - fit)]
        starts = self._starts[: max(1, len(self._starts) - fit + 1)]
        room = width
        for index in range(first, len(tokens)):
            word = tokens[index].text.replace("\n", "⏎").replace("\t", " ")
            if cell_len(word) > room and rows[-1]:
                rows.append([])
                starts.append(index)
                room = width
            word = word[:width] if rows[-1] else word.lstrip(" ")[:width]
            rows[-1].append((word, tokens[index]))
            room -= cell_len(word)
        self._starts = starts
        return rows[-fit:]

    def on_resize(self) -> None:
        self._starts = []
        super().on_resize()
