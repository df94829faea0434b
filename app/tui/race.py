"""`/race`: the last question once more, dense against the policy in use, in two lanes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import zip_longest

from rich.style import Style
from rich.text import Text
from textual.widgets import Static

from specee.app.options import ChatOptions, PolicyChoice
from specee.app.protocol import ChatEvent, Stats

SAME_SEED = 1
MARK = Style(reverse=True)


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


class Race(Static):
    """Two lanes; the first differing token is marked in both."""

    DEFAULT_CSS = """
    Race { margin: 1 0; padding: 0 1; border: round $primary-muted; }
    """

    def show(self, one: Lane, two: Lane) -> None:
        differs = first_difference(one, two)
        text = Text()
        for lane in (one, two):
            rate = f"{lane.stats.tokens_per_second:.1f} tokens/s" if lane.stats is not None else "running"
            text.append(f"{lane.name}: {rate}\n", Style(bold=True))
            for index, word in enumerate(lane.tokens):
                text.append(word, MARK if index == differs else "")
            text.append("\n\n")
        both = one.stats is not None and two.stats is not None
        if both and differs is None:
            text.append("the same words")
        elif differs is not None:
            text.append(f"they differ from token {differs + 1} on")
        if both and one.stats is not None and two.stats is not None and one.stats.tokens_per_second:
            text.append(f"; {two.stats.tokens_per_second / one.stats.tokens_per_second:.2f} times the speed")
        self.update(text)
