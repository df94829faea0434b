"""How long a step of n rows takes on this machine: what decides how many drafted tokens are worth their rows."""

from __future__ import annotations

import statistics
import time

from specee.app.engine.backend import ChatEngine
from specee.native.errors import NativeError

SIZES = (1, 2, 4, 3, 6, 8)  # the most telling ones first
MAX_ROUNDS = 3
MAX_SECONDS = 0.4
TOKEN = 0


def measure_steps(engine: ChatEngine) -> dict[int, float]:
    """Seconds of a step of n rows, by n; what the cache holds is left as it is.

    Only {1: ...} or nothing where there is no room for more, or where the model's memory cannot drop rows again.
    """
    seconds: dict[int, list[float]] = {}
    began = time.perf_counter()
    for number in range(MAX_ROUNDS + 1):  # the first round builds graphs
        for n in SIZES:
            if n > engine.max_equal_rows or engine.length + n > engine.n_ctx:
                continue
            if number > 1 and time.perf_counter() - began > MAX_SECONDS:
                break
            try:
                seconds.setdefault(n, []).append(_step(engine, n))
            except NativeError:
                return {}
    return {n: statistics.median(times[1:] or times) for n, times in sorted(seconds.items())}


def _step(engine: ChatEngine, n: int) -> float:
    rows = [engine.append(TOKEN)]
    while len(rows) < n:
        rows.append(engine.append(TOKEN, rows[-1]))
    began = time.perf_counter()
    try:
        engine.advance(rows, engine.n_layer, logits=True)
        return time.perf_counter() - began
    finally:
        engine.roll_back(engine.length)
