"""What exits have saved in this sitting, against the dense rate measured on this machine."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text

from specee.app.tui.views.base import DepthView

SLOWER, FASTER = Style(color="red", bold=True), Style(color="green")


class Odometer(DepthView):
    """Layers and seconds saved, the cost of looking subtracted; red when exits made it slower."""

    def render(self) -> Text:
        gauge = self.gauge
        text = Text(f"layers left out  {gauge.layers_saved}\n", no_wrap=True)
        if gauge.dense_rate is None:
            return text.append("seconds saved    unknown: dense was not measured here yet")
        slower = gauge.seconds_saved < 0
        word = "▼ slower than dense" if slower else "▲ saved" if gauge.seconds_saved else "no exits yet"
        text.append(f"seconds saved    {gauge.seconds_saved:+.2f}  {word}\n", SLOWER if slower else FASTER)
        return text.append(f"dense rate here  {gauge.dense_rate:.1f} tokens/s; drafts and looks are subtracted")
