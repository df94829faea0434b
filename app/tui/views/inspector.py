"""One token after the other: what the predictors saw. Ctrl+Left and Ctrl+Right move."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text

from specee.app.tui.views.base import DepthView

AROUND = 6  # tokens shown on each side


class Inspector(DepthView):
    """The token under the cursor among its neighbours, its exit layer, the score at each probe, its candidates."""

    def render(self) -> Text:
        tokens = self.gauge.answer
        if not tokens:
            return Text("no answer yet")
        at = max(0, min(len(tokens) - 1, len(tokens) + self.gauge.cursor))
        column = tokens[at]
        line = Text(no_wrap=True, overflow="crop")
        for index in range(max(0, at - AROUND), min(len(tokens), at + AROUND + 1)):
            style = self.style(tokens[index])
            word = tokens[index].text.replace("\n", "⏎")
            line.append(f"[{word}]" if index == at else word, style + Style(reverse=True) if index == at else style)
        state = "verified" if column.verified else "not verified yet"
        how = "all layers" if column.layer >= self.n_layers else "left early"
        line.append(f"\ntoken {at + 1} of {len(tokens)}, id {column.token}: ")
        line.append(f"layer {column.layer} of {self.n_layers} ({how}), {state}")
        scores = "  ".join(f"{layer}:{score:.2f}" for layer, score in column.scores)
        line.append(f"\nscores by layer  {scores or 'not probed'}")
        line.append(f"\ncandidates  {' '.join(map(str, column.candidates)) or 'none'}")
        return line
