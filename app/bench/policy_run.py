"""What is compared, and what one policy made of one prompt."""

from __future__ import annotations

from dataclasses import dataclass

from specee.app.bench.dense_scores import DenseScores
from specee.app.options import PolicyChoice
from specee.predictors.decoding.stats import DecodingStats


@dataclass(frozen=True)
class ComparedPolicy:
    """A row of the report: `label` is what was asked for, `choice` what runs for it (they differ for `auto`)."""

    label: str
    choice: PolicyChoice
    reason: str


@dataclass(frozen=True)
class PolicyRun:
    """One policy's answer to one prompt.

    `tokens` include the stop token; `times` count from the first token, when each was verified.
    """

    tokens: list[int]
    layers: list[int]
    times: list[float]
    seconds: float
    text: str
    stats: DecodingStats

    @property
    def rate(self) -> float:
        """Decoded tokens per second; the first token comes from the prompt."""
        return (len(self.tokens) - 1) / self.seconds if len(self.tokens) > 1 and self.seconds > 0 else 0.0


ScoredRun = tuple[PolicyRun, DenseScores]
