"""What all views of the depth share."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual.widget import Widget

from specee.app.tui.state import Column, Gauge

BLOCKS = " ▁▂▃▄▅▆▇█"
EXIT, FULL, UNSURE = Style(color="green"), Style(color="blue"), Style(dim=True)


class DepthView(Widget):
    """A picture of a gauge. `show` is called at most ten times a second, and only for the view on the screen."""

    DEFAULT_CSS = """
    DepthView { height: 4; width: 1fr; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.gauge, self.n_layers = Gauge(), 1

    def show(self, gauge: Gauge, n_layers: int) -> None:
        """Draws this from now on."""
        self.gauge, self.n_layers = gauge, max(1, n_layers)
        self.refresh()

    def render(self) -> Text:
        """The picture."""
        raise NotImplementedError

    @property
    def plain(self) -> bool:
        """Whether there are no colours (NO_COLOR): then glyphs say what they would."""
        return self.app.no_color

    def style(self, column: Column) -> Style:
        """Green left early, blue went through all layers, dim is not verified."""
        style = FULL if column.layer >= self.n_layers else EXIT
        return style if column.verified else style + UNSURE

    def block(self, layer: int) -> str:
        """A layer as one of eight heights."""
        return BLOCKS[max(1, min(8, round(8 * layer / self.n_layers)))]
