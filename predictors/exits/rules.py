"""Every parameter of early exits in one place.

Where a section is named, the default is the paper's: SpecEE, "Accelerating Large Language Model Inference with
Speculative Early Exiting", ISCA 2025, section 4.3 (k candidates, 3k features, the two-layer predictor, its threshold,
the full-head check) and section 5 (offline schedule, and the layers near the last exits).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from specee.predictors.errors import RulesError

RuleKind = Literal["predictor", "margin"]
SkippedKV = Literal["propagate", "complete"]

DRAFTERS = ("ngram", "linear")
"""Names of all drafters; decoding/build_policy.py makes them."""

DEFAULT_DRAFTERS = ("ngram", "linear")
"""Those of a new calibration, in the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class ExitRules:
    """When a row may exit, and what becomes of the layers it skipped. Raises RulesError for values out of range."""

    k: int = 4
    """Candidates of an exit predictor (4.3)."""
    n_hidden: int = 512
    """Hidden units of an exit predictor (4.3)."""
    threshold: float = 0.5
    """A row exits when its score is above this: the exit predictor's output (4.3), or the margin rule's lead."""
    full_head_check: bool = True
    """Predictor rule: exit only if the best token of the whole vocabulary is among the candidates (4.3)."""
    no_repeat: bool = True
    """Not the paper's: no exit on the row's own token, nor on one that reads like the last one ("# Output" once more).
    Early states still resemble their own token, an n-gram proposes what came before, and a small model that has
    repeated itself is soon in a loop; here all layers decide."""
    recent_exits: int = 5
    """Online schedule: how many of the last tokens count (5)."""
    reach: int = 2
    """Online schedule: exit layers within this many layers of a recent exit are armed (5)."""
    arm_all: bool = False
    """Leave the schedule out: every exit layer is armed, that is, probed (for measurements)."""
    rule: RuleKind = "predictor"
    """What decides at an exit layer: the paper's predictor, or the lead of the best token of a shortlist."""
    kv: SkippedKV = "complete"
    """Policy specee, K and V of the deferred layers: computed later, several rows in one batch (exact), or propagated
    from the exit's state (cheap; on SmolLM2-135M it costs five points of agreement)."""
    max_pending: int = 3
    """Rows with deferred layers, at most; with the row that follows they are completed in one batch."""
    drafters: tuple[str, ...] = DEFAULT_DRAFTERS
    """Drafters of the candidates, in order; later ones fill what earlier ones leave open. Without k candidates a row
    is not probed."""
    ngram_max: int = 3
    """Longest context that the n-gram drafter looks up."""
    ngram_min: int = 2
    """Shortest context that the n-gram drafter looks up."""
    ngram_share: int = 2
    """Candidates that n-grams may take of the k when another drafter follows."""

    def __post_init__(self) -> None:
        _check(1 <= self.k <= 16, f"k = {self.k}: take 1 to 16 candidates")
        _check(1 <= self.n_hidden <= 65536, f"n_hidden = {self.n_hidden}: take 1 to 65536 units")
        _check(0.0 <= self.threshold <= 1.0, f"threshold = {self.threshold}: take a value from 0 to 1")
        _check(0 <= self.recent_exits <= 1024, f"recent_exits = {self.recent_exits}: take 0 to 1024 tokens")
        _check(self.reach >= 0, f"reach = {self.reach}: take 0 layers or more")
        _check(self.rule in ("predictor", "margin"), f"rule = {self.rule!r}: take 'predictor' or 'margin'")
        _check(self.kv in ("propagate", "complete"), f"kv = {self.kv!r}: take 'propagate' or 'complete'")
        _check(self.max_pending >= 1, f"max_pending = {self.max_pending}: take 1 row or more")
        _check(len(set(self.drafters)) == len(self.drafters) > 0, f"drafters = {self.drafters}: name each drafter once")
        for name in self.drafters:
            _check(name in DRAFTERS, f"no drafter {name!r}: take some of {', '.join(DRAFTERS)}")
        _check(
            1 <= self.ngram_min <= self.ngram_max <= 8,
            f"n-grams of {self.ngram_min} to {self.ngram_max}: take lengths from 1 to 8, the shortest first",
        )
        _check(self.ngram_share >= 1, f"ngram_share = {self.ngram_share}: take 1 or more candidates")

    def with_(self, **changes: object) -> ExitRules:
        """A copy with some rules changed. Raises RulesError for an unknown name."""
        known = {field.name for field in fields(self)}
        for name in changes:
            _check(name in known, f"no rule {name!r}")
        return replace(self, **changes)  # type: ignore[arg-type]


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise RulesError(message)
