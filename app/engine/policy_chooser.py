"""Policy `auto`: drafts wherever rejected tokens can be dropped; the cost model says for each step how many.

It keeps the dense model's text, with any seed: a step without drafts is a step of dense decoding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from specee.app.engine.backend import Backend
from specee.app.engine.measurements import Drafting, Measurements
from specee.app.engine.protocol import ModelInfo
from specee.app.engine.step_times import NO_ROOM, UNEQUAL, measure_steps
from specee.app.errors import AppError
from specee.app.options import PolicyChoice
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.stats import DecodingStats

MIN_TOKENS = 16  # of an answer that says something about the speed-up
DRAFTING = "drafting tokens"
DRAFT_MODELS = {"model", "eagle3"}  # drafters that are models
RATE = 0.3  # share of a new answer in the remembered speed-up


@dataclass(frozen=True)
class PolicyDecision:
    """The policy to run, and why, in words for the user."""

    choice: PolicyChoice
    reason: str
    dense_rate: float | None = None
    """Tokens per second of dense decoding here, where it is known."""
    stock_rate: float | None = None
    """Those of the unpatched library, where a benchmark has measured it here."""


class PolicyChooser:
    """Decides which policy answers, by what was measured."""

    def __init__(self, measurements: Measurements | None = None) -> None:
        self.measurements = measurements or Measurements()
        self._costs: dict[str, CostModel] = {}

    def decide(self, backend: Backend, choice: PolicyChoice) -> PolicyDecision:
        """What to run for the user's choice. Measures the times of steps if they are needed and not known."""
        decision = self._decide(backend, choice)
        return replace(decision, stock_rate=self.measurements.stock_rates.get(self.measurements.key(backend)))

    def _decide(self, backend: Backend, choice: PolicyChoice) -> PolicyDecision:
        if choice.drafts or (choice.is_lossless and choice.name not in ("auto", "dense")):
            drafting = self._drafting(backend)
            if drafting.refusal:
                title = "tokens cannot be drafted" if choice.drafts else f"policy {choice.label} cannot run"
                raise AppError(title, f"{drafting.refusal}; use --policy dense")
        if choice.name != "auto":
            known = self.measurements.drafting.get(self.measurements.key(backend))
            why = (
                "chosen by the user"
                if choice.is_lossless
                else "chosen by the user; lossy: the text may differ from that of dense"
            )
            return PolicyDecision(choice, why, known.dense_rate if known else None)
        drafting = self._drafting(backend)
        if drafting.refusal:
            why = f"tokens of this model cannot be drafted: {drafting.refusal}"
            return PolicyDecision(PolicyChoice("dense"), why, drafting.dense_rate)
        return PolicyDecision(PolicyChoice("chain"), _expectation(drafting), drafting.dense_rate)

    def build_policy(self, backend: Backend, choice: PolicyChoice, *, history: bool = True) -> Policy:
        """The policy of a decision's `choice`; see Backend.policy."""
        may_draft = choice.drafts or choice.name == "pipelined"
        return backend.policy(choice, self._cost(backend) if may_draft else None, history=history)

    def learn(self, backend: Backend, stats: DecodingStats) -> None:
        """An answer with drafts is complete: what it showed is remembered."""
        key = self.measurements.key(backend)
        cost = self._costs.get(key)
        if cost is None or stats.tokens < MIN_TOKENS or not stats.dense_seconds:
            return
        drafting = self._drafting(backend)
        drafting.seconds = dict(cost.times)
        before = drafting.speedup or stats.speedup
        drafting.speedup = before + RATE * (stats.speedup - before)
        self.measurements.save()

    def learn_rate(self, backend: Backend, tokens: int, tokens_per_second: float) -> None:
        """An answer without drafts is complete, which nothing was written beside."""
        if tokens < MIN_TOKENS or tokens_per_second <= 0.0:
            return
        key, known = self.measurements.key(backend), self.measurements.dense_rates
        before = known.get(key, tokens_per_second)
        known[key] = before + RATE * (tokens_per_second - before)
        self.measurements.save()

    def _drafting(self, backend: Backend) -> Drafting:
        key, known = self.measurements.key(backend), self.measurements.drafting
        if key not in known or (backend.engine.no_drafts and not known[key].refusal):  # measured by an older version
            steps = measure_steps(backend.engine)
            if steps.refusal == NO_ROOM:
                return Drafting({}, NO_ROOM)
            known[key] = Drafting(steps.seconds, steps.refusal)
            self.measurements.save()
        _limit_rows(backend, known[key])
        return known[key]

    def _cost(self, backend: Backend) -> CostModel:
        key = self.measurements.key(backend)
        if key not in self._costs:
            self._costs[key] = CostModel(self._drafting(backend).seconds, backend.engine.max_equal_rows)
        return self._costs[key]


def _limit_rows(backend: Backend, drafting: Drafting) -> None:
    """No more rows at once than have equal bits here, whoever asks for them."""
    most = 1 if drafting.refusal == UNEQUAL else max(drafting.seconds, default=backend.engine.max_equal_rows)
    for slot in backend.engine.slots:
        slot.max_equal_rows = min(slot.max_equal_rows, most)


def describe(stats: DecodingStats, reason: str, info: ModelInfo) -> str:
    """Why the policy ran, and what drafts brought in this answer."""
    drafted = {name: n for name, counts in stats.drafts.items() if (n := sum(counts.drafted))}
    if not drafted:
        return reason
    by_number = sorted(drafted, key=lambda name: -drafted[name])
    names = " and ".join([", ".join(by_number[:-1]), by_number[-1]] if by_number[1:] else by_number)
    brought = f"drafting {sum(drafted.values()) / stats.steps:.1f} tokens a step from {names}"
    if stats.dense_seconds:
        brought += f": {stats.tokens_per_step:.2f} tokens a step, {stats.speedup:.2f}x of dense"
    if info.drafter is not None and not drafted.keys() & DRAFT_MODELS:
        brought += f"; {info.drafter} would have cost more than it brings"
    if info.drafter_is_for_others:
        brought += f"; {info.drafter} was trained for another model file, so fewer of its drafts may be right"
    return brought if reason.startswith(DRAFTING) else f"{reason}; {brought}"


def _expectation(drafting: Drafting) -> str:
    what = f"{DRAFTING} where that pays"
    return f"{what}: {drafting.speedup:.2f}x of dense so far" if drafting.speedup else what
