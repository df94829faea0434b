"""What an answer cost and what the exits gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import zip_longest
from typing import Any

from specee.predictors.drafters.base import DraftTree


@dataclass(slots=True)
class DraftCounts:
    """Of one drafter: its drafted and its accepted tokens, by their position in the draft, the first one first."""

    drafted: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    def __add__(self, other: DraftCounts) -> DraftCounts:
        return DraftCounts(add_positions(self.drafted, other.drafted), add_positions(self.accepted, other.accepted))

    def count(self, position: int, accepted: bool) -> None:
        """One more token at this position, from 0 on."""
        while len(self.drafted) <= position:
            self.drafted.append(0)
            self.accepted.append(0)
        self.drafted[position] += 1
        self.accepted[position] += accepted


def add_positions(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Sums by position."""
    return [x + y for x, y in zip_longest(a, b, fillvalue=0)]


@dataclass(slots=True)
class DecodingStats:
    """Counts of one answer; add them up for several. Tokens that were rolled back count in `rolled_back` only."""

    tokens: int = 0
    exit_layers: int = 0
    """Sum over the tokens of their exit layers."""
    probes: int = 0
    exits: int = 0
    """Tokens of the answer that were chosen before the last layer."""
    checks: int = 0
    """Full-head checks."""
    checks_failed: int = 0
    """Full-head checks after which the row went on."""
    tested: int = 0
    """Tokens that were put to a test before they stood: in specee the full-head check, in exact the dense model's
    logits."""
    accepted: int = 0
    """Those that passed it."""
    rolled_back: int = 0
    """Tokens that were rejected, and those after them."""
    rejected_early: int = 0
    """Drafted rows that left their batch at an exit layer."""
    steps: int = 0
    """Batches that reached the last layer."""
    rows: int = 0
    """Rows of the answer; its first token comes from the prompt's last row."""
    armed: int = 0
    """Sum over the rows of the exit layers that were armed."""
    schedule_hits: int = 0
    """Exits at a layer that the online schedule had armed."""
    all_exits: int = 0
    """Exits, rolled back ones too."""
    draft_seconds: float = 0.0
    """Time in drafting candidates for the exit predictor."""
    check_seconds: float = 0.0
    """Time in full-head checks; probes run inside of the engine's `run_to_exit`."""
    step_seconds: float = 0.0
    """Time of the steps with drafts, without drafting."""
    dense_seconds: float = 0.0
    """What dense decoding would have taken for their tokens, by the cost model."""
    drafts: dict[str, DraftCounts] = field(default_factory=dict)
    """By drafter."""

    def __add__(self, other: DecodingStats) -> DecodingStats:
        total = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name != "drafts"}
        drafts = dict(self.drafts)
        for drafter, counts in other.drafts.items():
            drafts[drafter] = drafts.get(drafter, DraftCounts()) + counts
        return DecodingStats(**total, drafts=drafts)

    def count_drafts(self, drafters: Sequence[str], n_accepted: int) -> None:
        """A verified chain of drafts: who drafted each of its tokens, and how many of them were accepted."""
        self.tested += len(drafters)
        self.accepted += n_accepted
        for position, drafter in enumerate(drafters):
            self.count_draft(drafter, position, position < n_accepted)

    def count_tree(self, tree: DraftTree, drafters: Sequence[str], accepted: Sequence[int]) -> None:
        """A verified tree of drafts: who drafted each of its tokens, and which were accepted."""
        self.tested += len(tree.tokens)
        self.accepted += len(accepted)
        positions: list[int] = []
        for i, (parent, drafter) in enumerate(zip(tree.parents, drafters, strict=True)):
            positions.append(0 if parent < 0 else positions[parent] + 1)
            self.count_draft(drafter, positions[i], i in accepted)

    def count_draft(self, drafter: str, position: int, accepted: bool) -> None:
        """A drafted token that stands or was rejected, with its position in the draft."""
        counts = self.drafts.get(drafter) or self.drafts.setdefault(drafter, DraftCounts())
        counts.count(position, accepted)

    @property
    def mean_exit_layer(self) -> float:
        return self.exit_layers / self.tokens if self.tokens else 0.0

    @property
    def acceptance(self) -> float | None:
        """accepted / tested; None when nothing was tested."""
        return self.accepted / self.tested if self.tested else None

    @property
    def tokens_per_step(self) -> float | None:
        """Without the first token, which comes from the prompt; None without a step."""
        return (self.tokens - 1) / self.steps if self.steps else None

    @property
    def speedup(self) -> float:
        """Of drafting over dense decoding, by the cost model; 1 without drafts or a clock."""
        spent = self.step_seconds + self.draft_seconds
        return self.dense_seconds / spent if self.dense_seconds and spent else 1.0

    @property
    def mean_armed(self) -> float:
        return self.armed / self.rows if self.rows else 0.0

    @property
    def schedule_hit_rate(self) -> float:
        """Share of the exits that the online schedule had armed."""
        return self.schedule_hits / self.all_exits if self.all_exits else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Counts and ratios, for reports."""
        return {
            **asdict(self),
            "mean_exit_layer": self.mean_exit_layer,
            "acceptance": self.acceptance,
            "mean_armed": self.mean_armed,
            "schedule_hit_rate": self.schedule_hit_rate,
        }
