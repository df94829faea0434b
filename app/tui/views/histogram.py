"""How many steps of the answer gave 1, 2, 3 ... tokens, or how many tokens exited at each layer."""

from __future__ import annotations

from collections import Counter

from rich.style import Style

from specee.app.tui.views.base import BLOCKS, EXIT, FULL, PLAIN, DepthView, Row, lines, merged

PROBED = Style(color="yellow", bold=True)
LEGEND = "   ^ probed  o not verified"
MOST_TOKENS = 8  # of a step
WIDE = 5  # cells of a number of tokens


class Histogram(DepthView):
    """Bars are steps with so many tokens; or exits, ^ layers where the last token was probed, o tokens not verified."""

    CAPTION = "how many steps gave 1, 2, 3 ... tokens; where layers are skipped, how many tokens exited at each layer"

    TITLE = "Histogram"

    def sentence(self) -> str:
        if self.gauge.drafts:
            return "how many steps of the last answer gave 1, 2, 3 ... tokens"
        return "how many tokens of the last answer ended at each layer"

    def rows(self) -> list[Row]:
        return self._steps() if self.gauge.drafts else self._exits()

    def _steps(self) -> list[Row]:
        # each step has one token that the model itself chose
        steps = Counter(column.step.tokens for column in self.gauge.answer if column.drafter is None)
        sizes = range(1, max(MOST_TOKENS, *steps, 0) + 1)
        most = max(steps.values(), default=1)
        bars = [BLOCKS[max(1, round(8 * steps[size] / most)) if steps[size] else 0] * (WIDE - 1) for size in sizes]
        return [
            [(" ".join(bars), FULL)],
            *lines("".join(f"{size:<{WIDE}}" for size in sizes) + "tokens a step"),
            *lines("".join(f"{steps[size] or '·':<{WIDE}}" for size in sizes) + "steps"),
        ]

    def _exits(self) -> list[Row]:
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
