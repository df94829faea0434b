"""Policy `auto`: is decoding with exits worth it on this machine? Found out while answering, then remembered.

`auto` chooses only among policies that keep the dense model's text: `specee` changes it, so the user asks for it. Until
enough is known these policies take turns in the answers themselves (app/comparison.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from specee.app import machine
from specee.app.engine.loading import Backend
from specee.app.engine.policy_comparison import ROUNDS, STRETCH, Comparison
from specee.app.engine.protocol import Message, Progress
from specee.app.options import PLAIN_GREEDY, PolicyChoice
from specee.native.saturation import fewest_threads
from specee.predictors.decoding import InTurns, Policy

PROMPTS = (  # how often words leave early depends on the text
    "List the planets of the solar system in order and say one fact about each of them.",
    "Tell me what a good night's sleep does for memory, in a few plain sentences.",
    "Write a Python function that counts the vowels of a string, and explain it.",
)
MOST_ANSWERS = 40  # to prompts of ours; so many only where answers are too short to compare anything
FORMAT = 4


@dataclass(frozen=True)
class Verdict:
    """The policy to run, and why. With `undecided` set, dense and the exact policies take turns instead."""

    choice: PolicyChoice
    reason: str
    dense_rate: float | None = None
    undecided: Comparison | None = None


class Tuner:
    """Decides for one model; keeps what was measured in a JSON file (None: for this process only)."""

    def __init__(self, store: Path | None = None, build: str = "") -> None:
        self._store, self._build = store, build
        self._known: dict[str, Comparison] | None = None
        self._threads: dict[str, int] = {}

    def choose(self, backend: Backend, choice: PolicyChoice, *, reproducible: bool = False) -> Verdict:
        """What to run for the user's choice. `reproducible`: the same seed must give the same words again."""
        if choice.name != "auto":
            known = self._load().get(self._key(backend, PolicyChoice()))
            return Verdict(choice, "chosen by the user", known.dense_rate if known else None)
        dense = PolicyChoice("dense")
        if backend.info.dense_only:
            return Verdict(dense, f"this model is dense only: {backend.info.dense_only}")
        if not backend.info.calibrated:
            return Verdict(dense, "not calibrated: run specee-chat calibrate")
        known = self._comparison(backend, choice)
        rate = known.dense_rate
        if not known.decided:
            if reproducible:
                return Verdict(dense, "a seed was given, and exits are not compared with dense yet", rate)
            return Verdict(dense, f"comparing exits with dense: round {len(known.rounds) + 1}", rate, known)
        if not known.steady:
            return Verdict(dense, "the machine is too busy to compare: dense for now", rate)
        if known.winner:
            exact = exacts(backend, choice)[known.winner - 1]
            return Verdict(exact, f"exits reach {known.ratio:.2f}x of dense here", rate)
        return Verdict(dense, f"dense is faster here: exits reach {known.ratio:.2f}x", rate)

    def policy(self, backend: Backend, choice: PolicyChoice, verdict: Verdict) -> Policy:
        """The verdict's policy for the user's choice."""
        if verdict.undecided is None:
            return backend.policy(verdict.choice)
        contenders = [PolicyChoice("dense"), *exacts(backend, choice)]
        return InTurns([backend.policy(contender) for contender in contenders], verdict.undecided)

    def decide(self, backend: Backend, choice: PolicyChoice, emit: Callable[[object], None]) -> Verdict:
        """Like `choose`, but what is not known yet is measured now, with prompts of ours."""
        sampler = backend.sampler(PLAIN_GREEDY)
        verdict = self.choose(backend, choice)
        for turn in range(MOST_ANSWERS):
            if verdict.undecided is None:
                break
            emit(Progress("measuring this machine", min(1.0, len(verdict.undecided.rounds) / ROUNDS)))
            text = PROMPTS[turn % len(PROMPTS)]
            tokens = backend.tokenize(backend.format((Message("user", text),)), bos=False)
            backend.engine.prefill(tokens)
            sampler.rewind(tokens)
            length = 2 * STRETCH * (len(verdict.undecided.rules) + 1)
            policy = self.policy(backend, choice, verdict)
            steps = policy.generate(backend.engine, sampler, np.random.default_rng(0), length, tokens)
            with closing(steps):  # type: ignore[type-var]
                for _ in steps:
                    pass
            verdict = self.choose(backend, choice)
        self.save()
        return replace(verdict, undecided=None)

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
            engine.limit_single(self._threads[key])

    def save(self) -> None:
        """Keeps the rounds so far. What a busy machine gave is forgotten with the process."""
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

    def _comparison(self, backend: Backend, choice: PolicyChoice) -> Comparison:
        rules = tuple(exact.rule for exact in exacts(backend, choice))
        key = self._key(backend, choice)
        known = self._load().get(key)
        if known is None or known.rules != rules:
            known = self._load()[key] = Comparison(rules)
        return known

    def _key(self, backend: Backend, choice: PolicyChoice) -> str:
        key = f"{backend.sha256} | {machine.identity()} | {backend.info.threads} threads | {self._build}"
        return key if choice == PolicyChoice() else f"{key} | {choice.label}/{choice.max_pending}"

    def _load(self) -> dict[str, Comparison]:
        if self._known is None:
            self._known = {}
            try:
                stored = json.loads(self._store.read_text("utf-8")) if self._store else {}
                if stored.get("format") == FORMAT:
                    self._known = {k: _comparison(v["rules"], v["rounds"]) for k, v in stored["measured"].items()}
                    self._threads = {k: int(n) for k, n in stored["threads"].items() if int(n) > 0}
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                pass  # a damaged file is measured again
        return self._known


def exacts(backend: Backend, choice: PolicyChoice) -> list[PolicyChoice]:
    """The policies with exits that `auto` may choose."""
    rules = (choice.rule,) if choice.rule else backend.rules()
    return [replace(choice, name="exact", rule=rule) for rule in rules]


def _comparison(rules: list[str | None], rounds: list[list[float]]) -> Comparison:
    if any(len(rates) != len(rules) + 1 or min(rates) <= 0 for rates in rounds):
        raise ValueError("rounds of other policies")
    return Comparison(tuple(rules), [[float(rate) for rate in rates] for rates in rounds])
