"""One token after the other: what the predictors saw. Ctrl+Left and Ctrl+Right move."""

from __future__ import annotations

from rich.style import Style

from specee.app.tui.views.base import DepthView, Row, lines

AROUND = 6  # tokens shown on each side
CURSOR = Style(reverse=True)


class Inspector(DepthView):
    """The token under the cursor among its neighbours, its exit layer, the score at each probe, its candidates."""

    def picture(self) -> list[Row]:
        tokens = self.gauge.answer
        if not tokens:
            return lines("no answer yet")
        at = max(0, min(len(tokens) - 1, len(tokens) + self.gauge.cursor))
        column = tokens[at]
        row: Row = []
        for index in range(max(0, at - AROUND), min(len(tokens), at + AROUND + 1)):
            style = self.style(tokens[index])
            word = tokens[index].text.replace("\n", "⏎")
            row.append((f"[{word}]", style + CURSOR) if index == at else (word, style))
        state = "verified" if column.verified else "not verified yet"
        how = "all layers" if column.layer >= self.n_layers else "left early"
        scores = "  ".join(f"{layer}:{score:.2f}" for layer, score in column.scores)
        text = (
            f"token {at + 1} of {len(tokens)}: layer {column.layer} of {self.n_layers} ({how}), {state}\n"
            f"scores by layer  {scores or 'not probed'}\n"
            f"candidates  {' '.join(map(str, column.candidates)) or 'none'}; id {column.token} was taken"
        )
        return [row, *lines(text)]
