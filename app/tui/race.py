"""`/race`: the last question is answered twice, dense and with the policy in use, and the two answers are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from textual.content import Content

from specee.app.engine.protocol import ChatEvent, Stats
from specee.app.first_difference import first_difference
from specee.app.options import ChatOptions, PolicyChoice
from specee.app.tui.entries import Entry
from specee.app.tui.wrapping import NOTHING, Block

SAME_SEED = 1
BAR = Content.styled("│ ", "$text-muted")


@dataclass
class RaceRun:
    """The answer of one policy, with its figures at the end."""

    name: str
    texts: dict[int, str] = field(default_factory=dict)
    """The text of each token, by its index."""
    stats: Stats | None = None

    def add(self, event: ChatEvent) -> None:
        if event.state == "verified" and not event.stop:
            self.texts[event.index] = self.texts.get(event.index, "") + event.text

    @property
    def tokens(self) -> list[str]:
        return [self.texts[index] for index in sorted(self.texts)]

    @property
    def title(self) -> str:
        """Its name and its figures."""
        if self.stats is None:
            return f"{self.name}: {'running' if self.texts else 'waiting'}"
        rate = f"{self.stats.tokens_per_second:.1f} tokens/s"
        return f"{self.name}: {rate}, {self.stats.mean_exit_layer:.1f} of {self.stats.n_layers} layers per token"


def race_options(options: ChatOptions) -> tuple[ChatOptions, ChatOptions]:
    """The options of both runs: greedy, so that the texts differ only where the policy makes them differ."""
    fair = replace(options, sampling=replace(options.sampling, temperature=0.0, seed=SAME_SEED))
    return replace(fair, policy=PolicyChoice("dense")), fair


def where_they_differ(one: RaceRun, two: RaceRun) -> int | None:
    """The index of the first token that differs, once both are there; None while they agree."""
    a, b = one.tokens, two.tokens
    if one.stats is None or two.stats is None:
        n = min(len(a), len(b))
        a, b = a[:n], b[:n]
    return first_difference(a, b)


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
            tokens = [
                Content.styled(f"[{token}]" if plain else token, "reverse") if index == differs else Content(token)
                for index, token in enumerate(run.tokens)
            ]
            blocks += [
                Block(Content.styled(run.title, "bold"), BAR, BAR),
                Block(NOTHING.join(tokens), BAR, BAR),
                Block(NOTHING, BAR, BAR),
            ]
        return [*blocks, Block(Content(self._verdict(differs)), BAR, BAR)]

    def _verdict(self, differs: int | None) -> str:
        one, two = (run.stats for run in self.runs)
        over = one is not None and two is not None
        if differs is not None:
            verdict = f"the texts differ from token {differs + 1} on"
        else:
            verdict = "the same text" if over else "the same text so far"
        if one is not None and two is not None and one.tokens_per_second:
            speed = two.tokens_per_second / one.tokens_per_second
            verdict += f"; {self.runs[1].name} ran at {speed:.2f} times the speed of dense"
        return verdict
