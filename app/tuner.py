"""Policy `auto`: is decoding with exits worth it on this machine? Measured once per model, then remembered.

`auto` chooses only among policies that keep the dense model's text: `specee` changes it, so the user asks for it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from specee.app import machine
from specee.app.backend import Backend
from specee.app.options import PLAIN_GREEDY, PolicyChoice
from specee.app.protocol import Message, Progress

WORTH = 0.99  # exits cost at most this much of the dense rate
BUDGET_SECONDS = 4.0
ROUNDS = 3
MIN_TOKENS, MAX_TOKENS = 8, 48
PROMPT = "List the planets of the solar system in order and say one fact about each of them."
FORMAT = 1


@dataclass(frozen=True)
class Verdict:
    """The policy to run, why, and the measured dense rate (tokens per second), if any."""

    choice: PolicyChoice
    reason: str
    dense_rate: float | None = None
    measured_now: bool = False


@dataclass(frozen=True)
class Measured:
    """Tokens per second; `ratio` is exact to dense, the geometric mean over the rounds."""

    dense_rate: float
    exact_rate: float
    ratio: float


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
            return Verdict(choice, "chosen by --policy", known.dense_rate if known else None)
        dense = PolicyChoice("dense")
        if backend.info.dense_only:
            return Verdict(dense, f"this model is dense only: {backend.info.dense_only}")
        if not backend.info.calibrated:
            return Verdict(dense, "not calibrated: run specee-chat calibrate")
        exact = PolicyChoice("exact", choice.threshold, choice.rule, choice.kv, choice.max_pending)
        if choice != PolicyChoice():
            key += f" | {exact.label}/{exact.max_pending}"
            known = self._load().get(key)
        measured_now = known is None
        if known is None:
            known = measure(backend, exact, emit)
            self._save(key, known)
        times = f"{known.ratio:.2f}x"
        if known.ratio >= WORTH:
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


def measure(backend: Backend, exact: PolicyChoice, emit: Callable[[object], None]) -> Measured:
    """Decodes a short prompt with dense and exact in turn and compares the rates, in about BUDGET_SECONDS."""
    tokens = backend.tokenize(backend.format((Message("user", PROMPT),)), bos=False)
    dense = PolicyChoice("dense")
    emit(Progress("measuring this machine", 0.0))
    trial = _rate(backend, dense, tokens, MIN_TOKENS)  # also warms up: the first run builds graphs
    n = int(min(MAX_TOKENS, max(MIN_TOKENS, BUDGET_SECONDS * trial / (2 * ROUNDS))))
    _rate(backend, exact, tokens, MIN_TOKENS)
    dense_rates: list[float] = []
    exact_rates: list[float] = []
    for step, (choice, rates) in enumerate(_alternate((dense, dense_rates), (exact, exact_rates))):
        rates.append(_rate(backend, choice, tokens, n))
        emit(Progress("measuring this machine", (step + 1) / (2 * ROUNDS)))
    logs = [math.log(e / d) for e, d in zip(exact_rates, dense_rates, strict=True)]
    return Measured(_median(dense_rates), _median(exact_rates), math.exp(sum(logs) / len(logs)))


def _alternate(
    a: tuple[PolicyChoice, list[float]], b: tuple[PolicyChoice, list[float]]
) -> Iterator[tuple[PolicyChoice, list[float]]]:
    """a b, b a, a b: a machine that slows down or speeds up harms both alike."""
    for turn in range(ROUNDS):
        yield from ((a, b) if turn % 2 == 0 else (b, a))


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


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
