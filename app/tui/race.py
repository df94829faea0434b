"""`/race`: the last question is answered twice, dense and with the policy in use, and the two answers are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from textual.content import Content

from specee.app.engine.protocol import ChatEvent, Stats
from specee.app.first_difference import first_difference
from specee.app.formatting import visible
from specee.app.options import DRAFTING, ChatOptions, PolicyChoice
from specee.app.tui.drafters import in_order, source, variable
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
    drafters: dict[int, str] = field(default_factory=dict)
    """What drafted a token, by its index."""
    stats: Stats | None = None
    in_thought: bool = False

    def add(self, event: ChatEvent) -> None:
        if event.state == "verified" and not event.stop:
            gap = "\n\n" if event.channel == "answer" and self.in_thought and event.text else ""
            self.in_thought = event.channel == "thought" or (self.in_thought and not event.text)
            self.texts[event.index] = self.texts.get(event.index, "") + gap + visible(event.text)
            if event.drafter is not None:
                self.drafters[event.index] = event.drafter

    @property
    def tokens(self) -> list[str]:
        return [self.texts[index] for index in sorted(self.texts)]

    @property
    def title(self) -> str:
        """Its name and its figures."""
        if self.stats is None:
            return f"{self.name}: {'running' if self.texts else 'waiting'}"
        rate = f"{self.stats.tokens_per_second:.1f} tokens/s"
        if self.stats.policy in DRAFTING:
            counted = self.stats.policy_stats
            per_step = (counted["tokens"] - 1) / counted["steps"] if counted["steps"] else 1.0
            drafted = f"{len(self.drafters)} of {len(self.texts)} tokens drafted"
            return f"{self.name}: {rate}, {per_step:.2f} tokens a step, {drafted}"
        if self.stats.policy == "dense":
            return f"{self.name}: {rate}, one token a step"
        return f"{self.name}: {rate}, {self.stats.mean_exit_layer:.1f} of {self.stats.n_layers} layers per token"

    def content(self, differs: int | None, plain: bool) -> Content:
        """The text, each token in the colour of what drafted it; the one that differs is marked."""
        tokens = []
        for index, token in enumerate(self.tokens):
            drafter = self.drafters.get(index)
            if index == differs:
                tokens.append(Content.styled(f"[{token}]" if plain else token, "reverse"))
            else:
                tokens.append(Content.styled(token, f"${variable(drafter)}") if drafter else Content(token))
        return NOTHING.join(tokens)

    @property
    def legend(self) -> Content:
        """What the colours mean, and how many tokens have each; without colours the numbers still say it."""
        drafted = Counter(self.drafters.values())
        entries = [
            Content.assemble(("█", f"${variable(name)}"), f" {drafted[name]} from {source(name).name}")
            for name in in_order(drafted)
        ]
        return Content("drafted: ") + Content("  ").join(entries)


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
            blocks += [Block(Content.styled(run.title, "bold"), BAR, BAR), Block(run.content(differs, plain), BAR, BAR)]
            if run.drafters:
                blocks.append(Block(run.legend, BAR, BAR))
            blocks.append(Block(NOTHING, BAR, BAR))
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
