"""A column a token, as high as the layer where its word was chosen."""

from __future__ import annotations

from itertools import islice

from rich.text import Text

from specee.app.tui.state import Column
from specee.app.tui.views.base import BLOCKS, DepthView

UNVERIFIED = "▒"  # what dimness says where there is no colour


class Skyline(DepthView):
    """The last tokens that fit; unverified ones are dim."""

    def render(self) -> Text:
        width, height = max(1, self.content_size.width), max(1, self.content_size.height)
        columns = self.gauge.columns
        shown = list(islice(columns, max(0, len(columns) - width), None))
        eighths = [round(c.layer * height * 8 / self.n_layers) for c in shown]
        picture = Text(no_wrap=True, overflow="crop")
        for row in reversed(range(height)):
            for column, high in zip(shown, eighths, strict=True):
                picture.append(self._glyph(column, high - 8 * row), self.style(column))
            if row:
                picture.append("\n")
        return picture

    def _glyph(self, column: Column, eighths: int) -> str:
        if self.plain and not column.verified and eighths > 0:
            return UNVERIFIED
        return BLOCKS[min(8, max(0, eighths))]
