"""A column for each token, as high as the layers that it used."""

from __future__ import annotations

from itertools import islice

from specee.app.tui.gauge import TokenColumn
from specee.app.tui.views.base import BLOCKS, DepthView, Row, merged

UNVERIFIED_GLYPH = "▒"  # in place of dim colours


class Skyline(DepthView):
    """The last tokens that fit; those not verified yet are dim."""

    CAPTION = "a column for each token, as high as the layers it used; green skipped some, dim is not verified yet"

    def rows(self) -> list[Row]:
        width, height = max(1, self.content_size.width), max(1, self.content_size.height)
        columns = self.gauge.columns
        shown = list(islice(columns, max(0, len(columns) - width), None))
        eighths = [round(column.layer * height * 8 / self.n_layers) for column in shown]
        styles = [self.style(column) for column in shown]
        return [
            merged(
                (self._glyph(column, high - 8 * row), style)
                for column, high, style in zip(shown, eighths, styles, strict=True)
            )
            for row in reversed(range(height))
        ]

    def _glyph(self, column: TokenColumn, eighths: int) -> str:
        if self.plain and not column.verified and eighths > 0:
            return UNVERIFIED_GLYPH
        return BLOCKS[min(8, max(0, eighths))]
