"""Policy `auto`: is decoding with exits worth it on this machine? Found out while answering, then remembered.

`auto` chooses only among policies that keep the dense model's text: `specee` changes it, so the user asks for it. Until
enough is known, these policies alternate within the answers themselves (policy_comparison.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from specee.app.engine.backend import Backend
from specee.app.engine.decode import decode
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_comparison import MIN_RATIO, PART_TOKENS, ROUNDS, PolicyComparison
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Emit, Message, Progress
from specee.app.options import PLAIN_GREEDY, PolicyChoice
from specee.predictors.decoding.alternating import Alternating
from specee.predictors.decoding.policy import Policy

PROMPTS = (  # how often tokens exit early depends on the text
    "List the planets of the solar system in order and say one fact about each of them.",
    "Tell me what a good night's sleep does for memory, in a few plain sentences.",
    "Write a Python function that counts the vowels of a string, and explain it.",
)
MAX_ANSWERS = 40  # to PROMPTS; so many only where answers are too short to compare anything


@dataclass(frozen=True)
class PolicyDecision:
    """The policy to run, and why, in words for the user. With a `comparison`, the policies alternate instead."""

    choice: PolicyChoice
    reason: str
    dense_rate: float | None = None
    """Tokens per second that dense decoding reached here."""
    comparison: PolicyComparison | None = None


class PolicyChooser:
    """Decides which policy answers, by what was measured."""

    def __init__(self, measurements: Measurements | None = None) -> None:
        self.measurements = measurements or Measurements()

    def decide(self, backend: Backend, choice: PolicyChoice, *, reproducible: bool = False) -> PolicyDecision:
        """What to run for the user's choice. `reproducible`: the same seed must give the same text again."""
        if choice.name != "auto":
            known = self.measurements.comparisons.get(self.measurements.key(backend))
            return PolicyDecision(choice, "chosen by the user", known.dense_rate if known else None)
        dense = PolicyChoice("dense")
        if backend.info.dense_only:
            return PolicyDecision(dense, f"layers of this model cannot be skipped: {backend.info.dense_only}")
        if not backend.info.calibrated:
            why = "skipping layers needs a calibration of this model: run specee-chat calibrate"
            return PolicyDecision(dense, why)
        known = self._comparison(backend, choice)
        rate = known.dense_rate
        if not known.decided:
            if reproducible:
                why = (
                    "not known yet whether skipping layers is faster here; answers with a seed, and those beside "
                    "others, do not measure it"
                )
                return PolicyDecision(dense, why, rate)
            why = f"measuring whether skipping layers is faster here ({known.progress})"
            return PolicyDecision(dense, why, rate, known)
        if not known.steady:
            return PolicyDecision(dense, "the machine is too busy to measure whether skipping layers is faster", rate)
        chosen = exact_choices(backend, choice)[known.winner - 1] if known.winner else dense
        return PolicyDecision(chosen, _what_was_measured(known), rate)

    def build_policy(self, backend: Backend, choice: PolicyChoice, decision: PolicyDecision) -> Policy:
        """The policy that was decided for the user's choice."""
        if decision.comparison is None:
            return backend.policy(decision.choice)
        choices = [PolicyChoice("dense"), *exact_choices(backend, choice)]
        return Alternating([backend.policy(choice) for choice in choices], decision.comparison)

    def measure(self, backend: Backend, choice: PolicyChoice, emit: Emit) -> PolicyDecision:
        """Like `decide`, but what is not known yet is measured now, with answers to PROMPTS."""
        decision = self.decide(backend, choice)
        for number in range(MAX_ANSWERS):
            comparison = decision.comparison
            if comparison is None:
                break
            share = min(1.0, len(comparison.rounds) / ROUNDS)
            emit(Progress("measuring whether skipping layers is faster here", share))
            tokens = make_prompt(backend, (Message("user", PROMPTS[number % len(PROMPTS)]),)).tokens
            backend.engine.prefill(tokens)
            length = 2 * PART_TOKENS * (len(comparison.rules) + 1)
            policy = self.build_policy(backend, choice, decision)
            for _ in decode(backend, policy, tokens, PLAIN_GREEDY, 0, length)[1]:
                pass
            decision = self.decide(backend, choice)
        self.measurements.save()
        return replace(decision, comparison=None)

    def _comparison(self, backend: Backend, choice: PolicyChoice) -> PolicyComparison:
        rules = tuple(exact.rule for exact in exact_choices(backend, choice))
        key, comparisons = self.measurements.key(backend, choice), self.measurements.comparisons
        known = comparisons.get(key)
        if known is None or known.rules != rules:
            known = comparisons[key] = PolicyComparison(rules)
        return known


def exact_choices(backend: Backend, choice: PolicyChoice) -> list[PolicyChoice]:
    """The policies with exits that `auto` may choose."""
    rules = (choice.rule,) if choice.rule else backend.exit_rule_names()
    return [replace(choice, name="exact", rule=rule) for rule in rules]


def _what_was_measured(known: PolicyComparison) -> str:
    """What skipping layers brings, in words for the user."""
    ratio = f"{known.ratio:.2f}x"
    if known.winner:
        return f"skipping layers is {'faster' if known.ratio >= 1.005 else 'no slower'} here ({ratio})"
    if known.ratio >= MIN_RATIO:
        return f"skipping layers is not always faster here ({ratio}, but {known.low_ratio:.2f}x at times)"
    return f"skipping layers would be slower here ({ratio})"
