"""How many threads one row needs: some keep the memory busy, which bounds it; more only wait for each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Protocol

ROUNDS = 3
EQUAL = 1.02  # so much slower counts as equally fast: fewer threads leave more of the machine to others


class RowComputer(Protocol):
    """What is needed of an engine."""

    n_threads: int
    n_ctx: int

    @property
    def length(self) -> int: ...

    def forward(self, token: int) -> object: ...

    def roll_back(self, length: int) -> None: ...

    def fix_threads(self, n: int) -> None: ...


def counts(n: int) -> list[int]:
    """Numbers of threads worth trying, from all n to one."""
    found = [n]
    while found[-1] > 1:
        found.append(max(1, min(found[-1] - 1, found[-1] * 3 // 4)))
    return found


def fewest_threads(engine: RowComputer, clock: Callable[[], float] = time.perf_counter) -> int:
    """The fewest threads with which one more token is as fast as with any number; it leaves no token behind."""
    length = engine.length
    if length >= engine.n_ctx:
        return engine.n_threads

    def seconds(n: int) -> float:
        engine.fix_threads(n)
        began = clock()
        engine.forward(0)
        elapsed = clock() - began
        engine.roll_back(length)
        return elapsed

    best = fewest = engine.n_threads
    try:
        seconds(best)  # graphs are built and threads started at the first use
        for fewer in counts(best)[1:]:
            pairs = [(seconds(best), seconds(fewer)) for _ in range(ROUNDS)]
            before, now = (median(side) for side in zip(*pairs, strict=True))
            if now > EQUAL * before:  # with still fewer it only takes longer
                break
            fewest = fewer
            best = fewer if now < before else best
    finally:
        engine.fix_threads(0)
        engine.roll_back(length)
    return fewest
