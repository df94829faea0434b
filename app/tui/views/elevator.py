"""The layers from left to right, and how many tokens of the answer exited at each."""

from __future__ import annotations

from collections import Counter

from rich.style import Style

from specee.app.tui.views.base import BLOCKS, EXIT, FULL, PLAIN, DepthView, Row, lines, merged

PROBED = Style(color="yellow", bold=True)
LEGEND = "   ^ probed  o not verified"


class Elevator(DepthView):
    """Bars are exits of this answer, ^ layers where the last token was probed, o tokens not verified yet."""

    CAPTION = "how many tokens exited at each layer; ^ where the last one was probed"

    def rows(self) -> list[Row]:
        tokens = self.gauge.answer
        exits = Counter(column.layer for column in tokens)
        most = max(exits.values(), default=1)
        probed = {layer for layer, _ in tokens[-1].scores} if tokens else set()
        unverified = {column.layer for column in tokens[-32:] if not column.verified}
        wide = 2 if 2 * self.n_layers + len(LEGEND) <= self.content_size.width else 1
        bars, marks = [], []
        for layer in range(1, self.n_layers + 1):
            high = max(1, round(8 * exits[layer] / most)) if exits[layer] else 0
            bars.append((BLOCKS[high] * wide, FULL if layer == self.n_layers else EXIT))
            mark = "o" if layer in unverified else "^" if layer in probed else "·"
            marks.append((mark.ljust(wide), PROBED if layer in probed else PLAIN))
        scale = f"layer 1{self.n_layers:>{max(1, wide * self.n_layers - 7)}}{LEGEND if tokens else ''}"
        n_unverified = sum(not column.verified for column in tokens)
        counts = f"{len(tokens)} tokens, {self.gauge.n_skipping(self.n_layers)} skipped layers"
        return [merged(bars), merged(marks), *lines(scale), *lines(f"{counts}, {n_unverified} not verified yet")]
