"""A column for each token: as high as the layers that it used, or as the tokens that came in the same step."""

from __future__ import annotations

from itertools import islice

from specee.app.tui.drafters import source
from specee.app.tui.gauge import TokenColumn
from specee.app.tui.views.base import BLOCKS, CHOSEN, DepthView, Row, merged

UNVERIFIED_GLYPH = "▒"  # in place of dim colours
MOST_TOKENS = 8  # of a step: the full height


class Columns(DepthView):
    """The last tokens that fit, over a line that says what height and colours mean."""

    CAPTION = (
        "a column for each token: with drafts as high as the tokens of its step, coloured by where they come from; "
        "else as high as the layers it used"
    )
    TITLE = "Columns"
    LEAST_TITLED = 6
    DEFAULT_CSS = """
    Columns { height: 6; }
    """

    def rows(self) -> list[Row]:
        height, chosen = max(1, self.n_lines - 1), self.chosen
        drafts, shown = self.gauge.drafts, self._shown()
        eighths = [round(8 * height * self._share(column, drafts)) for column in shown]
        styles = [self.style(column) + CHOSEN if column is chosen else self.style(column) for column in shown]
        bars = [
            merged(
                (self._glyph(column, high - 8 * row, row), style)
                for column, high, style in zip(shown, eighths, styles, strict=True)
            )
            for row in reversed(range(height))
        ]
        head = "height: tokens a step" if drafts else "height: layers used"
        return [*bars, (self.about_chosen() or self.legend(shown, head)) if shown else []]

    def sentence(self) -> str:
        if self.gauge.drafts:
            return f"one for each token, as high as the tokens that its step gave (full: {MOST_TOKENS})"
        return f"one for each token, as high as the layers that it used (full: {self.n_layers})"

    def has_title(self) -> bool:
        return bool(self.gauge.columns)

    def token_at(self, x: int, y: int) -> TokenColumn | None:
        shown = self._shown()
        return shown[x] if 0 <= x < len(shown) and 0 <= y < self.n_lines - 1 else None

    def _shown(self) -> list[TokenColumn]:
        columns = self.gauge.columns
        return list(islice(columns, max(0, len(columns) - max(1, self.content_size.width)), None))

    def _share(self, column: TokenColumn, drafts: bool) -> float:
        """Of the full height."""
        return min(1.0, column.step.tokens / MOST_TOKENS) if drafts else column.layer / self.n_layers

    def _glyph(self, column: TokenColumn, eighths: int, row: int) -> str:
        if self.plain and eighths > 0:
            if not column.verified:
                return UNVERIFIED_GLYPH
            if column.drafter is not None and row == 0:
                return source(column.drafter).letter
        return BLOCKS[min(8, max(0, eighths))]
