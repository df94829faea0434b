"""Drafts, layers and time saved since the program started, against the dense rate measured on this machine."""

from __future__ import annotations

from rich.style import Style

from specee.app.tui.views.base import DepthView, Row, lines

SLOWER, FASTER = Style(color="red", bold=True), Style(color="green")


class Totals(DepthView):
    """Tokens drafted, layers and seconds saved, with the cost of it all; red when it made answers slower."""

    CAPTION = "tokens drafted, layers skipped and time saved since the start of the program"

    TITLE = "Totals"

    def sentence(self) -> str:
        return "what drafts and skipped layers saved since the program started"

    def rows(self) -> list[Row]:
        gauge = self.gauge
        saved = lines(f"tokens drafted  {gauge.drafted_so_far}\nlayers skipped  {gauge.layers_saved}")
        if gauge.dense_rate is None:
            return saved + lines("time saved      unknown: the speed without either is not measured yet")
        slower = gauge.seconds_saved < 0
        verdict = "▼ slower than without" if slower else "▲ faster" if gauge.seconds_saved else "nothing yet"
        return [
            *saved,
            *lines(f"time saved      {gauge.seconds_saved:+.2f} s  {verdict}", SLOWER if slower else FASTER),
            *lines(f"without either  {gauge.dense_rate:.1f} tokens/s on this machine"),
        ]
