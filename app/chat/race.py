"""The last question is answered twice, dense and with the policy in use, and the two answers are compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from specee.app.engine.protocol import ChatEvent, Stats
from specee.app.first_difference import first_difference
from specee.app.formatting import visible
from specee.app.options import DRAFTING, ChatOptions, PolicyChoice

SAME_SEED = 1


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


def verdict(one: RaceRun, two: RaceRun) -> str:
    """What the comparison says so far."""
    over = one.stats is not None and two.stats is not None
    if (differs := where_they_differ(one, two)) is not None:
        said = f"the texts differ from token {differs + 1} on"
    else:
        said = "the same text" if over else "the same text so far"
    if one.stats is not None and two.stats is not None and one.stats.tokens_per_second:
        speed = two.stats.tokens_per_second / one.stats.tokens_per_second
        said += f"; {two.name} ran at {speed:.2f} times the speed of dense"
    return said
