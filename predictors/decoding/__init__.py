"""Ways to decode, by name."""

from __future__ import annotations

from specee.predictors.calibration.file import Artifact
from specee.predictors.decoding.alternating import InTurns, Referee
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.exact import Exact
from specee.predictors.decoding.policy import Policy, Step
from specee.predictors.decoding.specee import SpecEE
from specee.predictors.decoding.stats import PolicyStats
from specee.predictors.errors import ArtifactError, RulesError
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule

__all__ = [
    "NAMES",
    "Dense",
    "Exact",
    "InTurns",
    "Policy",
    "PolicyStats",
    "Referee",
    "SpecEE",
    "Step",
    "build",
    "schedule_of",
]

NAMES = ("dense", "specee", "exact")


def schedule_of(artifact: Artifact, rules: ExitRules) -> Schedule:
    """The schedule that the rules and the calibration give. The margin rule has its own boundaries, always armed."""
    margin = rules.rule == "margin"
    return Schedule(
        artifact.margin_layers if margin else artifact.boundaries,
        artifact.margin_layers if margin else artifact.offline,
        recent_exits=rules.recent_exits,
        reach=rules.reach,
        arm_all=rules.arm_all,
    )


def build(name: str, artifact: Artifact | None, rules: ExitRules) -> Policy:
    """A policy by name. Raises ArtifactError when it needs a calibration and there is none, RulesError otherwise."""
    if name == "dense":
        return Dense()
    if name not in NAMES:
        raise RulesError(f"no policy {name!r}: take one of {', '.join(NAMES)}")
    if artifact is None:
        raise ArtifactError(f"policy {name} needs one for this model: run specee-chat calibrate", "No calibration")
    artifact.check_rules(rules)
    schedule = schedule_of(artifact, rules)
    return SpecEE(rules, schedule) if name == "specee" else Exact(rules, schedule)
