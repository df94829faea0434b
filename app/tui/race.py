"""`/race` on the screen: both answers, one under the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from textual.content import Content

from specee.app.chat.race import RaceRun, verdict, where_they_differ
from specee.app.tui.drafters import in_order, source, variable
from specee.app.tui.entries import Entry
from specee.app.tui.wrapping import NOTHING, Block

BAR = Content.styled("│ ", "$text-muted")


def _content(run: RaceRun, differs: int | None, plain: bool) -> Content:
    """The text, each token in the colour of what drafted it; the one that differs is marked."""
    tokens = []
    for index, token in enumerate(run.tokens):
        drafter = run.drafters.get(index)
        if index == differs:
            tokens.append(Content.styled(f"[{token}]" if plain else token, "reverse"))
        else:
            tokens.append(Content.styled(token, f"${variable(drafter)}") if drafter else Content(token))
    return NOTHING.join(tokens)


def _legend(run: RaceRun) -> Content:
    """What the colours mean, and how many tokens have each; without colours the numbers still say it."""
    drafted = Counter(run.drafters.values())
    entries = [
        Content.assemble(("█", f"${variable(name)}"), f" {drafted[name]} from {source(name).name}")
        for name in in_order(drafted)
    ]
    return Content("drafted: ") + Content("  ").join(entries)


class RaceEntry(Entry):
    """Both answers, one under the other; the first token that differs is marked in both."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.runs = RaceRun("dense"), RaceRun(label)

    @property
    def running(self) -> RaceRun:
        """The run that events belong to: dense first, then the other."""
        one, two = self.runs
        return one if one.stats is None else two

    @property
    def text(self) -> str:
        return "\n\n".join(f"{run.title}\n{''.join(run.tokens)}" for run in self.runs)

    def blocks(self, width: int, plain: bool) -> Sequence[Block]:
        differs = where_they_differ(*self.runs)
        blocks = []
        for run in self.runs:
            blocks += [
                Block(Content.styled(run.title, "bold"), BAR, BAR),
                Block(_content(run, differs, plain), BAR, BAR),
            ]
            if run.drafters:
                blocks.append(Block(_legend(run), BAR, BAR))
            blocks.append(Block(NOTHING, BAR, BAR))
        return [*blocks, Block(Content(verdict(*self.runs)), BAR, BAR)]
