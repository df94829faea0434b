"""One token after the other: what drafted it, the scores of its exit predictors. Ctrl+Left and Ctrl+Right move."""

from __future__ import annotations

from rich.style import Style

from specee.app.tui.drafters import source
from specee.app.tui.gauge import TokenColumn
from specee.app.tui.views.base import DepthView, Row, lines, quoted

AROUND = 6  # tokens shown on each side
CURSOR = Style(reverse=True)


class OneToken(DepthView):
    """The token under the cursor among its neighbours, and what is known of it."""

    CAPTION = "one token at a time (Ctrl+Left, Ctrl+Right): what drafted it, or its layers and the scores of its exits"

    TITLE = "Token"

    def sentence(self) -> str:
        return "one at a time; Ctrl+Left and Ctrl+Right take its neighbours"

    def rows(self) -> list[Row]:
        tokens = self.gauge.answer
        if not tokens:
            return lines("no answer yet")
        at = max(0, min(len(tokens) - 1, len(tokens) + self.gauge.cursor))
        column = tokens[at]
        row: Row = []
        around = tokens[max(0, at - AROUND) : at + AROUND + 1]
        for neighbour in around:
            style = self.style(neighbour)
            text = neighbour.text.replace("\n", "⏎")
            row.append((f"[{text}]", style + CURSOR) if neighbour is column else (text, style))
        place = f"token {at + 1} of {len(tokens)}"
        if self.gauge.drafts:
            return [row, *lines(f"{place} {_origin(column)}"), self.legend(around, "tokens:")]
        state = "verified" if column.verified else "not verified yet"
        if column.layer < self.n_layers:
            used = f"used {column.layer} of {self.n_layers} layers"
        else:
            used = f"used all {self.n_layers} layers"
        scores = "  ".join(f"layer {layer}: {score:.2f}" for layer, score in column.scores)
        probed = f"exit scores  {scores}" if scores else "not probed for an exit"
        return [row, *lines(f"{place} {used}, {state}\n{probed}\n{_identity(column)}")]


def _origin(column: TokenColumn) -> str:
    """Where the token comes from, and what its step gave."""
    count = column.step.tokens
    step = f"its step gave {count} token{'s' * (count > 1)}"
    chosen = f"was drafted from {source(column.drafter).name}" if column.drafter else "was chosen by the model itself"
    return f"{chosen}\n{'; '.join(filter(None, (step, _identity(column))))}"


def _identity(column: TokenColumn) -> str:
    if column.token < 0:
        return ""  # of a stored answer
    tried = "  ".join(quoted(text) for text in column.candidate_texts)
    return f"token id {column.token}{f'; candidates {tried}' if tried else ''}"
