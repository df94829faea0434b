"""The layers and the time saved since the program started, against the dense rate measured on this machine."""

from __future__ import annotations

from rich.style import Style

from specee.app.tui.views.base import DepthView, Row, lines

SLOWER, FASTER = Style(color="red", bold=True), Style(color="green")


class Odometer(DepthView):
    """Layers and seconds saved, with the cost of exits; red when they made answers slower."""

    CAPTION = "layers skipped and time saved since the start of the program"

    def rows(self) -> list[Row]:
        gauge = self.gauge
        layers = lines(f"layers skipped  {gauge.layers_saved}")
        if gauge.dense_rate is None:
            return layers + lines("time saved      unknown: the speed with all layers is not measured yet")
        slower = gauge.seconds_saved < 0
        verdict = "▼ slower than with all layers" if slower else "▲ faster" if gauge.seconds_saved else "nothing yet"
        return [
            *layers,
            *lines(f"time saved      {gauge.seconds_saved:+.2f} s  {verdict}", SLOWER if slower else FASTER),
            *lines(f"with all layers {gauge.dense_rate:.1f} tokens/s on this machine"),
        ]
