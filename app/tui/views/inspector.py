"""One token after the other: the scores of its exit predictors. Ctrl+Left and Ctrl+Right move."""

from __future__ import annotations

from rich.style import Style

from specee.app.tui.views.base import DepthView, Row, lines

AROUND = 6  # tokens shown on each side
CURSOR = Style(reverse=True)


class Inspector(DepthView):
    """The token under the cursor among its neighbours, its exit layer, the score at each probe, its candidates."""

    CAPTION = "one token at a time (Ctrl+Left, Ctrl+Right): its layers, its scores, what it was chosen from"

    def rows(self) -> list[Row]:
        tokens = self.gauge.answer
        if not tokens:
            return lines("no answer yet")
        at = max(0, min(len(tokens) - 1, len(tokens) + self.gauge.cursor))
        column = tokens[at]
        row: Row = []
        for index in range(max(0, at - AROUND), min(len(tokens), at + AROUND + 1)):
            style = self.style(tokens[index])
            text = tokens[index].text.replace("\n", "⏎")
            row.append((f"[{text}]", style + CURSOR) if index == at else (text, style))
        state = "verified" if column.verified else "not verified yet"
        if column.layer < self.n_layers:
            used = f"used {column.layer} of {self.n_layers} layers"
        else:
            used = f"used all {self.n_layers} layers"
        scores = "  ".join(f"layer {layer}: {score:.2f}" for layer, score in column.scores)
        candidates = " ".join(map(str, column.candidates))
        text = (
            f"token {at + 1} of {len(tokens)} {used}, {state}\n"
            f"{f'exit scores  {scores}' if scores else 'not probed for an exit'}\n"
            f"token id {column.token}{f', candidate ids {candidates}' if candidates else ''}"
        )
        return [row, *lines(text)]
