"""Makes a policy by its name, with its schedule and drafters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from specee.predictors.acceptance import RULES
from specee.predictors.calibration.calibration_file import Calibration
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.chain import Chain
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.exact import Exact
from specee.predictors.decoding.exit_controller import ExitController
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.specee import SpecEE
from specee.predictors.drafters.base import Drafter
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.combined import CombinedDrafter
from specee.predictors.drafters.datastore import Datastore
from specee.predictors.drafters.guess import CostlyGuesser, Guesser
from specee.predictors.drafters.linear_head import Draft, LinearHeadDrafter
from specee.predictors.drafters.ngram import NGramDrafter
from specee.predictors.drafters.retrieval import RetrievalGuesser
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.errors import CalibrationFileError, RulesError
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule

POLICIES = ("dense", "specee", "exact")


def build_policy(name: str, calibration: Calibration | None, rules: ExitRules, draft: Draft) -> Policy:
    """A policy by name; `draft` computes the linear head.

    Raises CalibrationFileError when it needs a calibration and there is none, RulesError for what cannot be.
    """
    if name == "dense":
        return Dense()
    if name not in POLICIES:
        raise RulesError(f"no policy {name!r}: take one of {', '.join(POLICIES)}")
    if calibration is None:
        raise CalibrationFileError(
            f"policy {name} needs one for this model: run specee-chat calibrate", "No calibration"
        )
    calibration.check_rules(rules)
    controller = ExitController(rules, make_schedule(calibration, rules), make_drafter(rules, draft))
    return SpecEE(controller) if name == "specee" else Exact(controller)


def build_chain(
    cost: CostModel,
    datastores: Mapping[str, Datastore],
    costly: CostlyGuesser | None = None,
    acceptance: str | None = None,
) -> Chain:
    """The policy that drafts from the text so far, from datastores (by the name of their drafts), and with `costly`.

    `acceptance`: a name in acceptance.RULES, exact match by default.
    """
    guessers: list[Guesser] = [SuffixGuesser()]
    guessers += [RetrievalGuesser(datastore, name) for name, datastore in datastores.items()]
    return Chain(ChainDrafter(guessers, cost, costly), cost.max_rows - 1, RULES[acceptance or "exact"])


def make_schedule(calibration: Calibration, rules: ExitRules) -> Schedule:
    """The schedule of the rules and the calibration. The margin rule has exit layers of its own, always armed."""
    margin = rules.rule == "margin"
    return Schedule(
        calibration.margin_layers if margin else calibration.exit_layers,
        calibration.margin_layers if margin else calibration.offline,
        recent_exits=rules.recent_exits,
        reach=rules.reach,
        arm_all=rules.arm_all,
    )


def make_drafter(rules: ExitRules, draft: Draft) -> CombinedDrafter:
    """What drafts the candidates for the exit predictors."""
    makers: dict[str, Callable[[], Drafter]] = {
        "ngram": lambda: NGramDrafter(rules.ngram_max, rules.ngram_min),
        "linear": lambda: LinearHeadDrafter(draft),
    }
    return CombinedDrafter([makers[name]() for name in rules.drafters], rules.ngram_share)
