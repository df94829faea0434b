"""Makes a policy by its name, with its schedule and drafters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from specee.predictors.acceptance import RULES
from specee.predictors.calibration.calibration_file import Calibration
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.chain import Chain
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.early_rejection import EarlyRejection
from specee.predictors.decoding.exact import Exact
from specee.predictors.decoding.exit_controller import ExitController
from specee.predictors.decoding.merged_exits import MergedExits
from specee.predictors.decoding.pipelined import Pipelined
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.specee import SpecEE
from specee.predictors.decoding.tree import Tree
from specee.predictors.drafters.base import Drafter
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.combined import CombinedDrafter
from specee.predictors.drafters.datastore import Lookup
from specee.predictors.drafters.guess import CostlyGuesser, Guesser
from specee.predictors.drafters.linear_head import Draft, LinearHeadDrafter
from specee.predictors.drafters.ngram import NGramDrafter
from specee.predictors.drafters.retrieval import RetrievalGuesser
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.drafters.termination import BestLength, FixedLength, Termination
from specee.predictors.drafters.tree import TreeDrafter
from specee.predictors.errors import CalibrationFileError, RulesError
from specee.predictors.exits.rules import ExitRules
from specee.predictors.exits.schedule import Schedule

POLICIES = ("dense", "specee", "exact", "pipelined")
"""Those that `build_policy` makes."""
PIPELINED_ROWS = 4
"""So many tokens are drafted for each stage at most, where nobody says how many."""


def build_policy(
    name: str, calibration: Calibration | None, rules: ExitRules, draft: Draft, chain: ChainDrafter | None = None
) -> Policy:
    """A policy by name; `draft` computes the linear head. With `chain`, exact and specee verify its drafts too.

    Raises CalibrationFileError when it needs a calibration and there is none, RulesError for what cannot be.
    """
    if name == "dense":
        return Dense()
    if name not in POLICIES:
        raise RulesError(f"no policy {name!r}: take one of {', '.join(POLICIES)}")
    calibration = _needed(calibration, f"policy {name}")
    calibration.check_rules(rules)
    if name == "pipelined":
        return build_pipelined((calibration.n_layer,), calibration)
    controller = ExitController(rules, make_schedule(calibration, rules), make_drafter(rules, draft))
    if chain is not None:
        if rules.rule == "margin":
            raise RulesError("exits of drafted tokens take the rule 'predictor'")
        return MergedExits(controller, chain, chain.cost.max_rows, "specee" if name == "specee" else "exact")
    return SpecEE(controller) if name == "specee" else Exact(controller)


def build_chain(drafter: ChainDrafter, acceptance: str | None = None, early: EarlyRejection | None = None) -> Chain:
    """The policy that verifies chains of drafts. `acceptance`: a name in acceptance.RULES, exact match by default."""
    return Chain(drafter, drafter.cost.max_rows - 1, RULES[acceptance or "exact"], early)


def build_tree(drafter: TreeDrafter, acceptance: str | None = None) -> Tree:
    """The policy that verifies trees of drafts, see `build_chain`."""
    return Tree(drafter, drafter.cost.max_rows - 1, RULES[acceptance or "exact"])


def build_pipelined(
    stages: Sequence[int], calibration: Calibration | None, drafter: ChainDrafter | None = None, width: int | None = 1
) -> Pipelined:
    """Stages of the model's devices, by where their layers end; on one device, two that meet at an exit layer.

    Raises CalibrationFileError where that needs a calibration, or nothing else guesses.
    """
    if len(stages) == 1:
        calibration = _needed(calibration, "policy pipelined on one device")
        middle = min(calibration.exit_layers, key=lambda layer: abs(2 * layer - calibration.n_layer))
        stages = (middle, *stages)
    lens = calibration is not None and stages[0] in calibration.exit_layers
    if drafter is None and not lens:
        raise CalibrationFileError(f"no exit layer is where the first device ends ({stages[0]})", "No guesses")
    return Pipelined(stages, drafter, width if drafter is not None else 1, lens=lens)


def make_early_rejection(calibration: Calibration | None) -> EarlyRejection:
    """At the first exit layer of the offline schedule. Raises CalibrationFileError without a calibration."""
    calibration = _needed(calibration, "early rejection")
    rules = calibration.exit_rules("predictor")
    return EarlyRejection(min(calibration.offline or calibration.exit_layers), rules.k, rules.threshold)


def make_chain_drafter(
    cost: CostModel,
    datastores: Mapping[str, Lookup],
    costly: CostlyGuesser | None = None,
    length: int | None = None,
) -> ChainDrafter:
    """Drafts from the text so far, from datastores (by the name of their drafts), and with `costly`: `length` tokens,
    or as many as pay."""
    return ChainDrafter(_guessers(datastores), cost, costly, _termination(cost, length))


def make_tree_drafter(
    cost: CostModel,
    datastores: Mapping[str, Lookup],
    costly: CostlyGuesser | None = None,
    length: int | None = None,
) -> TreeDrafter:
    """See `make_chain_drafter`."""
    return TreeDrafter(_guessers(datastores), cost, costly, _termination(cost, length))


def _needed(calibration: Calibration | None, what: str) -> Calibration:
    if calibration is None:
        raise CalibrationFileError(f"{what} needs one for this model: run specee-chat calibrate", "No calibration")
    return calibration


def _guessers(datastores: Mapping[str, Lookup]) -> list[Guesser]:
    return [SuffixGuesser(), *(RetrievalGuesser(datastore, name) for name, datastore in datastores.items())]


def _termination(cost: CostModel, length: int | None) -> Termination:
    return BestLength(cost) if length is None else FixedLength(length)


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
