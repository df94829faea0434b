"""What one policy, or the unpatched library, made of one prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

from specee.predictors.decoding.stats import DecodingStats


@dataclass(frozen=True)
class Answer:
    """`tokens` include the stop token; `times` are the seconds from the first token to each, when it was verified."""

    tokens: list[int]
    times: list[float]

    def seconds(self, end: int | None = None) -> float:
        """From the first token's time to the last one's; `end`: only so many tokens."""
        times = self.times[:end]
        return times[-1] if times else 0.0

    def decoded(self, end: int | None = None) -> int:
        """Tokens in that time; the first one comes from the prompt."""
        return max(0, len(self.tokens[:end]) - 1)

    def rate(self, end: int | None = None) -> float | None:
        """Decoded tokens per second; None where nothing was decoded."""
        decoded, seconds = self.decoded(end), self.seconds(end)
        return decoded / seconds if decoded and seconds > 0 else None


@dataclass(frozen=True)
class StepCounts:
    """What was counted when a token came."""

    steps: int
    tested: int
    accepted: int


@dataclass(frozen=True)
class PolicyAnswer(Answer):
    """A policy's answer. `exit_layers` and `counts` have an entry for each token."""

    exit_layers: list[int]
    counts: list[StepCounts]
    text: str
    stats: DecodingStats

    def counted(self, end: int | None = None) -> StepCounts:
        """What the first `end` tokens took: their steps, and the drafts that were verified up to the next one."""
        whole = StepCounts(self.stats.steps, self.stats.tested, self.stats.accepted)
        if end is None or end >= len(self.counts):
            return whole
        drafts = self.counts[end]
        return StepCounts(self.counts[end - 1].steps if end else 0, drafts.tested, drafts.accepted)


@dataclass(frozen=True)
class DenseScores:
    """For each token of a text its negative log-probability, and the token that dense would have chosen there."""

    nll: list[float]
    choices: list[int]


@dataclass(frozen=True)
class Round:
    """All answers to one prompt, one after the other. `scores`: by policy, in the first round of each prompt."""

    prompt: int
    answers: dict[str, PolicyAnswer]
    stock: Answer | None = None
    scores: dict[str, DenseScores] = field(default_factory=dict)
