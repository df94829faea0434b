"""The threshold and its effect: speed over layers used, a point for each answer."""

from __future__ import annotations

from textual.content import Content

from specee.app.tui.views.base import DIM, PLAIN, DepthView, Row, lines
from specee.app.tui.wrapping import Block, wrap

TRAIL = "123456789"


class ThresholdView(DepthView):
    """Layers used to the right, tokens per second upwards; digits number the last answers, * is the newest one."""

    CAPTION = "speed (up) against layers used (right), a point for each answer; [ and ] change the threshold"
    TITLE = "Threshold"
    LEAST_TITLED = 8
    DEFAULT_CSS = """
    ThresholdView { height: 8; }
    """
    threshold: float | None = None
    """The one in use; None is the calibrated one."""

    def sentence(self) -> str:
        if self.gauge.drafts:
            return "nothing to show for answers with drafts"
        return "tokens/s (up) and layers used (right) of the last answers, * is the newest"

    def rows(self) -> list[Row]:
        if self.gauge.drafts:
            why = (
                f"Policy {self.gauge.policy} uses all {self.n_layers} layers for each token: no threshold matters. "
                "With /policy exact or /policy specee tokens skip layers above a threshold; [ and ] change it, and "
                "each answer is a point here."
            )
            return [[(line.text.plain, PLAIN)] for line in wrap(Block(Content(why)), max(8, self.content_size.width))]
        points = self.gauge.points[-len(TRAIL) - 1 :]
        name = "calibrated" if self.threshold is None else f"{self.threshold:.2f}"
        head = lines(f"threshold {name}   [ skip more layers   ] skip fewer")
        if not points:
            return head + lines("each answer is a point here: faster is higher,\nmore layers used is further right")
        width, height = max(8, self.content_size.width - 8), max(2, self.n_lines - 2)
        rates, layers = [p.rate for p in points], [p.mean_layer for p in points]
        low, high, first = min(rates), max(rates), min(layers)
        grid = [[" "] * width for _ in range(height)]
        for number, point in enumerate(points):
            x = _cell(point.mean_layer, first, float(self.n_layers), width)
            y = _cell(point.rate, low, high, height)
            grid[height - 1 - y][x] = "*" if number == len(points) - 1 else TRAIL[number]
        labels = [f"{high:6.1f} ", *[" " * 7] * (height - 2), f"{low:6.1f} "]
        ends = f"{first:.0f}", f"{self.n_layers} layers used"
        axis: Row = [("tokens/s ", DIM), (f"{ends[0]}{ends[1]:>{max(1, width - 2 - len(ends[0]))}}", DIM)]
        chart: list[Row] = [[(label, DIM), ("".join(cells), PLAIN)] for label, cells in zip(labels, grid, strict=True)]
        return [*head, *chart, axis]


def _cell(value: float, low: float, high: float, cells: int) -> int:
    return 0 if high <= low else min(cells - 1, max(0, round((value - low) / (high - low) * (cells - 1))))
