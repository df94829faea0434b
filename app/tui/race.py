"""`/race`: the last question once more, dense against the policy in use, in two lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from textual.content import Content

from specee.app.engine.protocol import ChatEvent, Stats
from specee.app.options import ChatOptions, PolicyChoice
from specee.app.tui.entries import Entry
from specee.app.tui.lines import NOTHING, Block

SAME_SEED = 1
BAR = Content.styled("│ ", "$text-muted")


@dataclass
class Lane:
    """One runner: its words, and its figures at the end."""

    name: str
    words: dict[int, str] = field(default_factory=dict)
    stats: Stats | None = None

    def add(self, event: ChatEvent) -> None:
        if event.state == "verified" and not event.stop:
            self.words[event.index] = self.words.get(event.index, "") + event.text

    @property
    def tokens(self) -> list[str]:
        return [self.words[index] for index in sorted(self.words)]

    @property
    def title(self) -> str:
        """Its name and its figures."""
        if self.stats is None:
            return f"{self.name}: {'running' if self.words else 'waiting'}"
        rate = f"{self.stats.tokens_per_second:.1f} tokens/s"
        return f"{self.name}: {rate}, layer {self.stats.mean_exit_layer:.1f} of {self.stats.n_layers}"


def lanes(options: ChatOptions) -> tuple[ChatOptions, ChatOptions]:
    """How the two run: greedy, so that a difference is the policy's and not the dice's."""
    fair = replace(options, sampling=replace(options.sampling, temperature=0.0, seed=SAME_SEED))
    return replace(fair, policy=PolicyChoice("dense")), fair


def first_difference(one: Lane, two: Lane) -> int | None:
    """The index of the first token that differs, once both are there; None while they agree."""
    pairs = zip_longest(one.tokens, two.tokens)
    if one.stats is None or two.stats is None:
        pairs = zip(one.tokens, two.tokens, strict=False)  # type: ignore[assignment]
    return next((index for index, (a, b) in enumerate(pairs) if a != b), None)


class Race(Entry):
    """Two lanes; the first differing token is marked in both."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.lanes = Lane("dense"), Lane(label)

    @property
    def running(self) -> Lane:
        """The lane whose turn it is."""
        one, two = self.lanes
        return one if one.stats is None else two

    @property
    def text(self) -> str:
        return "\n\n".join(f"{lane.title}\n{''.join(lane.tokens)}" for lane in self.lanes)

    def blocks(self, width: int, plain: bool) -> Sequence[Block]:
        differs = first_difference(*self.lanes)
        blocks = []
        for lane in self.lanes:
            words = [
                Content.styled(f"[{word}]" if plain else word, "reverse") if index == differs else Content(word)
                for index, word in enumerate(lane.tokens)
            ]
            blocks += [
                Block(Content.styled(lane.title, "bold"), BAR, BAR),
                Block(NOTHING.join(words), BAR, BAR),
                Block(NOTHING, BAR, BAR),
            ]
        return [*blocks, Block(Content(self._verdict(differs)), BAR, BAR)]

    def _verdict(self, differs: int | None) -> str:
        one, two = (lane.stats for lane in self.lanes)
        if differs is not None:
            said = f"they differ from token {differs + 1} on"
        else:
            said = "the same words" if one is not None and two is not None else "the same words so far"
        if one is not None and two is not None and one.tokens_per_second:
            said += f"; {two.tokens_per_second / one.tokens_per_second:.2f} times the speed"
        return said
