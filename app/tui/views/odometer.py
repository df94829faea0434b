"""What exits have saved in this sitting, against the dense rate measured on this machine."""

from __future__ import annotations

from rich.style import Style

from specee.app.tui.views.base import DepthView, Row, lines

SLOWER, FASTER = Style(color="red", bold=True), Style(color="green")


class Odometer(DepthView):
    """Layers and seconds saved, the cost of looking subtracted; red when exits made it slower."""

    def picture(self) -> list[Row]:
        gauge = self.gauge
        layers = lines(f"layers left out  {gauge.layers_saved}")
        if gauge.dense_rate is None:
            return layers + lines("seconds saved    unknown: dense was not measured here yet")
        slower = gauge.seconds_saved < 0
        word = "▼ slower than dense" if slower else "▲ saved" if gauge.seconds_saved else "no exits yet"
        return [
            *layers,
            *lines(f"seconds saved    {gauge.seconds_saved:+.2f}  {word}", SLOWER if slower else FASTER),
            *lines(f"dense rate here  {gauge.dense_rate:.1f} tokens/s; looks are subtracted"),
        ]
