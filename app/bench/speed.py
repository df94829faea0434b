"""How fast answers are beside others of the same rounds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from specee.app.bench import metrics
from specee.app.bench.answer import Answer


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt in one round; `end`: so many tokens of each count, None: all."""

    prompt: int
    own: Answer
    baseline: Answer
    end: int | None


class Speed:
    """Prompts whose answers are a single token say nothing about it."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def of(self, prompts: Collection[int]) -> Speed:
        """Of these prompts only."""
        return Speed([pair for pair in self.pairs if pair.prompt in prompts])

    @property
    def rate(self) -> float | None:
        """Decoded tokens per second."""
        decoded = [(pair.own.decoded(pair.end), pair.own.seconds(pair.end)) for pair in self.pairs]
        return metrics.ratio(sum(n for n, _ in decoded), sum(seconds for _, seconds in decoded))

    @property
    def mean(self) -> float | None:
        """Geometric mean over the prompts of the ratio of the rates."""
        return metrics.geometric_mean(self._ratios)

    @property
    def least(self) -> float | None:
        """The ratio of the prompt with the least one."""
        return min(self._ratios, default=None)

    @property
    def most(self) -> float | None:
        return max(self._ratios, default=None)

    @cached_property
    def _ratios(self) -> list[float]:
        """For each prompt the geometric mean over its rounds."""
        found: dict[int, list[float]] = {}
        for pair in self.pairs:
            own, baseline = pair.own.rate(pair.end), pair.baseline.rate(pair.end)
            if own is not None and baseline is not None:
                found.setdefault(pair.prompt, []).append(own / baseline)
        return [mean for ratios in found.values() if (mean := metrics.geometric_mean(ratios)) is not None]
