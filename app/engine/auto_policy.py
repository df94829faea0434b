"""Policy `auto`: is decoding with exits worth it on this machine? Found out while answering, then remembered.

`auto` chooses only among policies that keep the dense model's text: `specee` changes it, so the user asks for it. Until
enough is known, these policies alternate within the answers themselves (policy_comparison.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from specee.app import machine
from specee.app.engine.backend import Backend
from specee.app.engine.decode import decode
from specee.app.engine.policy_comparison import LEAST_RATIO, ROUNDS, STRETCH_TOKENS, PolicyComparison
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message, Progress
from specee.app.options import PLAIN_GREEDY, PolicyChoice
from specee.native.thread_tuning import fewest_threads
from specee.predictors.decoding.alternating import Alternating
from specee.predictors.decoding.policy import Policy

PROMPTS = (  # how often tokens exit early depends on the text
    "List the planets of the solar system in order and say one fact about each of them.",
    "Tell me what a good night's sleep does for memory, in a few plain sentences.",
    "Write a Python function that counts the vowels of a string, and explain it.",
)
MOST_ANSWERS = 40  # to PROMPTS; so many only where answers are too short to compare anything
FORMAT = 4


@dataclass(frozen=True)
class PolicyDecision:
    """The policy to run, and why, in words for the user. With a `comparison`, the policies alternate instead."""

    choice: PolicyChoice
    reason: str
    dense_rate: float | None = None
    """Tokens per second that dense decoding reached here."""
    comparison: PolicyComparison | None = None


class AutoPolicy:
    """Decides for one model; keeps what was measured in a JSON file (None: for this process only)."""

    def __init__(self, store: Path | None = None, build: str = "") -> None:
        self._store, self._build = store, build
        self._known: dict[str, PolicyComparison] | None = None
        self._threads: dict[str, int] = {}

    def decide(self, backend: Backend, choice: PolicyChoice, *, reproducible: bool = False) -> PolicyDecision:
        """What to run for the user's choice. `reproducible`: the same seed must give the same text again."""
        if choice.name != "auto":
            known = self._load().get(self._key(backend, PolicyChoice()))
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
                why = "not known yet whether skipping layers is faster here; answers with a seed do not measure it"
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

    def measure(self, backend: Backend, choice: PolicyChoice, emit: Callable[[object], None]) -> PolicyDecision:
        """Like `decide`, but what is not known yet is measured now, with answers to PROMPTS."""
        decision = self.decide(backend, choice)
        for number in range(MOST_ANSWERS):
            comparison = decision.comparison
            if comparison is None:
                break
            share = min(1.0, len(comparison.rounds) / ROUNDS)
            emit(Progress("measuring whether skipping layers is faster here", share))
            tokens = make_prompt(backend, (Message("user", PROMPTS[number % len(PROMPTS)]),)).tokens
            backend.engine.prefill(tokens)
            length = 2 * STRETCH_TOKENS * (len(comparison.rules) + 1)
            policy = self.build_policy(backend, choice, decision)
            for _ in decode(backend, policy, tokens, PLAIN_GREEDY, 0, length)[1]:
                pass
            decision = self.decide(backend, choice)
        self.save()
        return replace(decision, comparison=None)

    def limit_threads(self, backend: Backend, *, measure: bool) -> None:
        """A single row gets the fewest threads that it is as fast with. `measure`: find out, if it is not known."""
        engine, key = backend.engine, self._key(backend, PolicyChoice())
        self._load()
        if engine.n_threads <= 2:  # with so few, each counts
            return
        if key not in self._threads and measure and engine.active_threads == engine.n_threads:
            self._threads[key] = fewest_threads(engine)
            self.save()
        if key in self._threads:
            engine.limit_single_row(self._threads[key])

    def save(self) -> None:
        """Keeps the rounds so far. Those of a busy machine are forgotten with the process."""
        if self._store is None:
            return
        kept = {key: c for key, c in self._load().items() if c.rounds and (c.steady or not c.decided)}
        measured = {key: {"rules": c.rules, "rounds": c.rounds} for key, c in kept.items()}
        content = {"format": FORMAT, "measured": measured, "threads": self._threads}
        part = self._store.with_name(f"{self._store.name}.{os.getpid()}")
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(content, indent=1), "utf-8")
            part.replace(self._store)
        except OSError:
            part.unlink(missing_ok=True)

    def _comparison(self, backend: Backend, choice: PolicyChoice) -> PolicyComparison:
        rules = tuple(exact.rule for exact in exact_choices(backend, choice))
        key = self._key(backend, choice)
        known = self._load().get(key)
        if known is None or known.rules != rules:
            known = self._load()[key] = PolicyComparison(rules)
        return known

    def _key(self, backend: Backend, choice: PolicyChoice) -> str:
        key = f"{backend.sha256} | {machine.identity()} | {backend.info.threads} threads | {self._build}"
        return key if choice == PolicyChoice() else f"{key} | {choice.label}/{choice.max_pending}"

    def _load(self) -> dict[str, PolicyComparison]:
        if self._known is None:
            self._known = {}
            try:
                stored = json.loads(self._store.read_text("utf-8")) if self._store else {}
                if stored.get("format") == FORMAT:
                    self._known = {k: _restored(v["rules"], v["rounds"]) for k, v in stored["measured"].items()}
                    self._threads = {k: int(n) for k, n in stored["threads"].items() if int(n) > 0}
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                pass  # a damaged file is measured again
        return self._known


def exact_choices(backend: Backend, choice: PolicyChoice) -> list[PolicyChoice]:
    """The policies with exits that `auto` may choose."""
    rules = (choice.rule,) if choice.rule else backend.rules()
    return [replace(choice, name="exact", rule=rule) for rule in rules]


def _what_was_measured(known: PolicyComparison) -> str:
    """What skipping layers brings, in words for the user."""
    ratio = f"{known.ratio:.2f}x"
    if known.winner:
        return f"skipping layers is {'faster' if known.ratio >= 1.005 else 'no slower'} here ({ratio})"
    if known.ratio >= LEAST_RATIO:
        return f"skipping layers is not always faster here ({ratio}, but {known.low_ratio:.2f}x at times)"
    return f"skipping layers would be slower here ({ratio})"


def _restored(rules: list[str | None], rounds: list[list[float]]) -> PolicyComparison:
    if any(len(rates) != len(rules) + 1 or min(rates) <= 0 for rates in rounds):
        raise ValueError("rounds of other policies")
    return PolicyComparison(tuple(rules), [[float(rate) for rate in rates] for rates in rounds])
