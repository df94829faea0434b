"""What an answer cost and what the exits gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass(slots=True)
class PolicyStats:
    """Counts of one answer; add them up for several. Withdrawn tokens do not count, except in `rolled_back`."""

    tokens: int = 0
    exit_layers: int = 0
    """Sum over the tokens of the layers done when the word was chosen."""
    probes: int = 0
    exits: int = 0
    """Tokens that stand and were chosen before the last layer."""
    checks: int = 0
    """Full-head checks."""
    checks_failed: int = 0
    """Full-head checks after which the row went on."""
    tested: int = 0
    """Proposed words that were verified: by the full-head check in specee, by the settled logits in exact."""
    accepted: int = 0
    rolled_back: int = 0
    """Tokens that were withdrawn."""
    passes: int = 0
    """Batches that reached the last layer."""
    rows: int = 0
    """Rows that were started; the first token of an answer comes from the prompt's row."""
    armed: int = 0
    """Sum over the rows of the boundaries that were armed."""
    schedule_hits: int = 0
    """Exits at a boundary that the last tokens' exits had armed."""
    taken: int = 0
    """Exits, withdrawn ones too."""
    draft_seconds: float = 0.0
    """Time in drafting candidates."""
    check_seconds: float = 0.0
    """Time in full-head checks; probes run inside of the engine's rise."""

    def __add__(self, other: PolicyStats) -> PolicyStats:
        return PolicyStats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def mean_exit_layer(self) -> float:
        return self.exit_layers / self.tokens if self.tokens else 0.0

    @property
    def acceptance(self) -> float:
        """accepted / tested; 1 when nothing was tested."""
        return self.accepted / self.tested if self.tested else 1.0

    @property
    def tokens_per_pass(self) -> float:
        return self.tokens / self.passes if self.passes else 0.0

    @property
    def mean_armed(self) -> float:
        return self.armed / self.rows if self.rows else 0.0

    @property
    def schedule_hit_rate(self) -> float:
        """Share of the exits that the online schedule had foreseen."""
        return self.schedule_hits / self.taken if self.taken else 0.0

    def as_dict(self) -> dict[str, float]:
        """Counts and ratios, for reports."""
        return {
            **asdict(self),
            "mean_exit_layer": self.mean_exit_layer,
            "acceptance": self.acceptance,
            "tokens_per_pass": self.tokens_per_pass,
            "mean_armed": self.mean_armed,
            "schedule_hit_rate": self.schedule_hit_rate,
        }
