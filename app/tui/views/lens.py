"""The end of the answer once more, coloured by depth."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from specee.app.tui.state import Column
from specee.app.tui.views.base import DepthView


class Lens(DepthView):
    """Words that left early are green; without colour a row of blocks under each line says how deep each one went."""

    def render(self) -> Text:
        rows = self._rows(max(8, self.content_size.width))
        fit = max(1, self.content_size.height // (2 if self.plain else 1))
        picture = Text(no_wrap=True, overflow="crop")
        for number, row in enumerate(rows[-fit:]):
            if number:
                picture.append("\n")
            for word, column in row:
                picture.append(word, self.style(column))
            if self.plain:
                picture.append("\n" + "".join(self.block(column.layer) * cell_len(word) for word, column in row))
        return picture

    def _rows(self, width: int) -> list[list[tuple[str, Column]]]:
        rows: list[list[tuple[str, Column]]] = [[]]
        room = width
        tokens = self.gauge.answer[-width * max(1, self.content_size.height) :]
        for column in tokens:
            word = column.text.replace("\n", "⏎").replace("\t", " ")
            if cell_len(word) > room and rows[-1]:
                rows.append([])
                room = width
            rows[-1].append((word[:width], column))
            room -= cell_len(word)
        return rows
