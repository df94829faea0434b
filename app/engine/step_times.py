"""What a step of n rows takes on this machine, and whether its rows get the bits that each has alone.

The times decide how many drafted tokens are worth their rows; without equal bits drafts could change the text.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specee.app.engine.backend import ChatEngine
from specee.native.errors import UnusableModelError

SIZES = (1, 2, 4, 3, 6, 8)  # the most telling ones first
PROOF = tuple(range(1, max(SIZES) + 1))  # tokens: any will do
UNEQUAL = "several tokens at once would not give exactly its own text here"
NO_ROOM = "its context window is full"
MAX_ROUNDS = 3
MAX_SECONDS = 0.3  # for rounds after the first one


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a step of n rows, by n: of as many as have equal bits.

    `refusal`: why tokens cannot be drafted with this model, None if they can.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    refusal: str | None = None


def measure_steps(engine: ChatEngine) -> StepTimes:
    """Takes well under a second on small models, some steps on large ones; what the cache holds is left as it is."""
    if engine.no_drafts:
        return StepTimes(refusal=engine.no_drafts)
    if engine.length + len(PROOF) >= engine.n_ctx:
        return StepTimes(refusal=NO_ROOM)
    n_equal = _equal_rows(engine)
    if n_equal < 2:
        return StepTimes(refusal=UNEQUAL)
    seconds: dict[int, list[float]] = {}
    began = time.perf_counter()
    for number in range(MAX_ROUNDS):
        for n in SIZES:
            if n > n_equal:
                continue
            if number and time.perf_counter() - began > MAX_SECONDS:
                break
            seconds.setdefault(n, []).append(_seconds(engine, n))
    # the least: other programs make a step slower, nothing makes it faster
    return StepTimes({n: min(times) for n, times in sorted(seconds.items())})


def _equal_rows(engine: ChatEngine) -> int:
    """As many rows in a batch as have the logits that they have one by one; builds the graphs of all sizes."""
    length = engine.length
    try:
        single: list[Any] = []
        for token in PROOF[: engine.max_equal_rows]:
            engine.forward(token)
            single.append(engine.logits(0))
        if np.isnan(single).any():
            raise UnusableModelError("damaged model", "what it computes is no number; get its file again")
        n_equal = 0
        for n in sorted(SIZES):  # a GPU has other kernels from some number of rows on
            engine.roll_back(length)
            if n > len(single):
                break
            _advance(engine, PROOF[:n])
            if not all(np.array_equal(engine.logits(i), single[i]) for i in range(n)):
                break
            n_equal = n
        return n_equal
    finally:
        engine.roll_back(length)


def _seconds(engine: ChatEngine, n: int) -> float:
    began = time.perf_counter()
    try:
        _advance(engine, PROOF[:1] * n)
        return time.perf_counter() - began
    finally:
        engine.roll_back(engine.length)


def _advance(engine: ChatEngine, tokens: tuple[int, ...]) -> None:
    rows = [engine.append(tokens[0])]
    for token in tokens[1:]:
        rows.append(engine.append(token, rows[-1]))
    engine.advance(rows, engine.n_layer, logits=True)
