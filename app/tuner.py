"""Policy `auto`: is decoding with exits worth it on this machine? Measured once per model, then remembered.

`auto` chooses only among policies that keep the dense model's text: `specee` changes it, so the user asks for it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from specee.app import machine
from specee.app.backend import Backend
from specee.app.options import PLAIN_GREEDY, PolicyChoice
from specee.app.protocol import Message, Progress

WORTH = 0.99  # exits cost at most this much of the dense rate
SURELY = 0.95  # and in no round more than this
BUDGET_SECONDS = 5.0
LIMIT_SECONDS = 8.0  # no further round is begun after that
MIN_TOKENS, MAX_TOKENS = 8, 64
WARM_UP_TOKENS = 4
UNSTEADY = 1.25  # rounds that differ by more than this factor compare nothing
PROMPTS = (  # a round each: how often words leave early depends on the text
    "List the planets of the solar system in order and say one fact about each of them.",
    "Tell me what a good night's sleep does for memory, in a few plain sentences.",
    "Write a Python function that counts the vowels of a string, and explain it.",
)
FORMAT = 3


@dataclass(frozen=True)
class Verdict:
    """The policy to run, why, and the measured dense rate (tokens per second), if any."""

    choice: PolicyChoice
    reason: str
    dense_rate: float | None = None
    measured_now: bool = False


@dataclass(frozen=True)
class Measured:
    """Tokens per second. `rule` is the exit rule of the faster exact policy, `ratio` its rate over dense's.

    `ratio` is the median over the rounds, `lowest` the worst of them.
    """

    dense_rate: float
    exact_rate: float
    ratio: float
    lowest: float
    rule: str | None = None
    steady: bool = True


class Tuner:
    """Decides for one model; keeps measurements in a JSON file (None: for this process only)."""

    def __init__(self, store: Path | None = None, build: str = "") -> None:
        self._store, self._build = store, build
        self._known: dict[str, Measured] | None = None

    def choose(self, backend: Backend, choice: PolicyChoice, emit: Callable[[object], None]) -> Verdict:
        """What to run for the user's choice; measures when `auto` needs it and nothing is known yet."""
        key = self._key(backend)
        known = self._load().get(key)
        if choice.name != "auto":
            return Verdict(choice, "chosen by the user", known.dense_rate if known else None)
        dense = PolicyChoice("dense")
        if backend.info.dense_only:
            return Verdict(dense, f"this model is dense only: {backend.info.dense_only}")
        if not backend.info.calibrated:
            return Verdict(dense, "not calibrated: run specee-chat calibrate")
        rules = (choice.rule,) if choice.rule else backend.rules()
        exacts = [replace(choice, name="exact", rule=rule) for rule in rules]
        if choice != PolicyChoice():
            key += f" | {choice.label}/{choice.max_pending}"
            known = self._load().get(key)
        measured_now = known is None
        if known is None:
            known = measure(backend, exacts, emit)
            if not known.steady:  # nothing to remember
                return Verdict(dense, "the machine is too busy to compare: dense for now", known.dense_rate, True)
            self._save(key, known)
        times = f"{known.ratio:.2f}x"
        if known.ratio >= WORTH and known.lowest >= SURELY:
            exact = replace(choice, name="exact", rule=known.rule)
            return Verdict(exact, f"exits reach {times} of dense here", known.dense_rate, measured_now)
        return Verdict(dense, f"dense is faster here: exits reach {times}", known.dense_rate, measured_now)

    def _key(self, backend: Backend) -> str:
        return f"{backend.sha256} | {machine.identity()} | {backend.info.threads} threads | {self._build}"

    def _load(self) -> dict[str, Measured]:
        if self._known is None:
            self._known = {}
            try:
                stored = json.loads(self._store.read_text("utf-8")) if self._store else {}
                if stored.get("format") == FORMAT:
                    self._known = {key: Measured(**value) for key, value in stored["measured"].items()}
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                pass  # a damaged cache is measured again
        return self._known

    def _save(self, key: str, measured: Measured) -> None:
        known = self._load()
        known[key] = measured
        if self._store is None:
            return
        content = {"format": FORMAT, "measured": {k: asdict(v) for k, v in known.items()}}
        part = self._store.with_name(f"{self._store.name}.{os.getpid()}")
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(content, indent=1), "utf-8")
            part.replace(self._store)
        except OSError:
            part.unlink(missing_ok=True)


def measure(backend: Backend, exacts: Sequence[PolicyChoice], emit: Callable[[object], None]) -> Measured:
    """Decodes a short prompt with dense and each exact policy in turn, in about BUDGET_SECONDS.

    Rates are compared within a round, so a machine that slows down meanwhile harms all alike.
    """
    began = time.perf_counter()
    prompts = [backend.tokenize(backend.format((Message("user", text),)), bos=False) for text in PROMPTS]
    choices = [PolicyChoice("dense"), *exacts]
    emit(Progress("measuring this machine", 0.0))
    warm = [
        _rate(backend, choice, prompts[0], WARM_UP_TOKENS) for choice in choices
    ]  # graphs are built at their first use
    n = int(min(MAX_TOKENS, max(MIN_TOKENS, BUDGET_SECONDS * min(warm) / (len(prompts) * len(choices)))))
    rates: list[list[float]] = [[] for _ in choices]
    for turn, tokens in enumerate(prompts):
        if turn > 0 and time.perf_counter() - began > LIMIT_SECONDS:
            break
        order = list(zip(choices, rates, strict=True))
        for choice, found in order if turn % 2 == 0 else reversed(order):
            found.append(_rate(backend, choice, tokens, n))
        emit(Progress("measuring this machine", (turn + 1) / len(prompts)))
    dense, *others = rates
    ratios = [[a / b for a, b in zip(other, dense, strict=True)] for other in others]
    best = max(range(len(ratios)), key=lambda i: _median(ratios[i]))
    return Measured(
        dense_rate=_median(dense),
        exact_rate=_median(others[best]),
        ratio=_median(ratios[best]),
        lowest=min(ratios[best]),
        rule=exacts[best].rule,
        steady=max(ratios[best]) <= UNSTEADY * min(ratios[best]),
    )


def _rate(backend: Backend, choice: PolicyChoice, tokens: list[int], n: int) -> float:
    """Tokens per second of decoding n tokens greedily, without the first one, which the prompt gives."""
    engine = backend.engine
    engine.prefill(tokens)
    policy = backend.policy(choice)
    sampler = backend.sampler(PLAIN_GREEDY)
    sampler.rewind(tokens)
    first_at, count = 0.0, 0
    steps = policy.generate(engine, sampler, np.random.default_rng(0), n, tokens)
    with closing(steps):  # type: ignore[type-var]
        for event in steps:
            first_at = first_at or time.perf_counter()
            count = max(count, event.index + 1)
    return max(count - 1, 1) / max(time.perf_counter() - first_at, 1e-9)


def _median(values: Sequence[float]) -> float:
    """The lower one of two in the middle: rather too slow than too fast."""
    return sorted(values)[(len(values) - 1) // 2]
