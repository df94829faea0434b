"""The layers as a shaft: where words got off, where predictors look now, and which words are still on their way."""

from __future__ import annotations

from collections import Counter

from rich.style import Style

from specee.app.tui.views.base import BLOCKS, EXIT, FULL, PLAIN, DepthView, Row, lines, merged

ARMED = Style(color="yellow", bold=True)


class Elevator(DepthView):
    """From left to right the layers: bars are exits of this answer, ^ predictors that looked at the last token, o words
    that wait to be verified."""

    def picture(self) -> list[Row]:
        tokens = self.gauge.answer
        exits = Counter(column.layer for column in tokens)
        most = max(exits.values(), default=1)
        armed = {layer for layer, _ in tokens[-1].scores} if tokens else set()
        waiting = {column.layer for column in tokens[-32:] if not column.verified}
        layers = range(1, self.n_layers + 1)
        wide = 2 if 2 * self.n_layers <= self.content_size.width else 1
        bars, marks = [], []
        for layer in layers:
            high = max(1, round(8 * exits[layer] / most)) if exits[layer] else 0
            bars.append((BLOCKS[high] * wide, FULL if layer == self.n_layers else EXIT))
            mark = "o" if layer in waiting else "^" if layer in armed else "·"
            marks.append((mark.ljust(wide), ARMED if layer in armed else PLAIN))
        early = sum(count for layer, count in exits.items() if layer < self.n_layers)
        going = sum(not column.verified for column in tokens)
        legend = "^ looked at  o waits" if tokens else ""
        scale = f"layer 1{self.n_layers:>{max(1, wide * self.n_layers - 7)}}   {legend}"
        said = f"{len(tokens)} words, {early} got off early, {going} on their way"
        return [merged(bars), merged(marks), *lines(scale), *lines(said)]
