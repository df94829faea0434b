"""How many threads one row needs: it waits for memory, which some keep busy; with more they wait for each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Protocol

ROUNDS = 5
EQUAL = 1.02  # so much slower counts as equally fast: fewer threads leave more of the machine to others


class RowComputer(Protocol):
    """What is needed of an engine."""

    n_threads: int
    n_layer: int
    n_ctx: int

    @property
    def length(self) -> int: ...

    def advance(
        self, pos: int, n: int, end: int, tokens: Sequence[int] | None = None, logits: bool = False
    ) -> None: ...

    def roll_back(self, length: int) -> None: ...

    def fix_threads(self, n: int) -> None: ...


def counts(n: int) -> list[int]:
    """Numbers of threads worth trying, from all n to one."""
    found = [n]
    while found[-1] > 1:
        found.append(max(1, min(found[-1] - 1, found[-1] * 3 // 4)))
    return found


def fewest_threads(engine: RowComputer, clock: Callable[[], float] = time.perf_counter) -> int:
    """The fewest threads with which a row after those in the cache is as fast as with any number; changes no row."""
    length = engine.length
    if length >= engine.n_ctx:
        return engine.n_threads
    numbers = counts(engine.n_threads)
    times: dict[int, list[float]] = {n: [] for n in numbers}
    try:
        for turn in range(ROUNDS + 1):
            for n in numbers if turn % 2 else reversed(numbers):
                engine.fix_threads(n)
                began = clock()
                engine.advance(length, 1, engine.n_layer, tokens=[0], logits=True)
                if turn:  # the first one builds graphs and starts threads
                    times[n].append(clock() - began)
                engine.roll_back(length)
    finally:
        engine.fix_threads(0)
        engine.roll_back(length)
    best = min(map(median, times.values()))
    return min(n for n, found in times.items() if median(found) <= EQUAL * best)
