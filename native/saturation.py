"""How many threads one row needs: it waits for memory, which some keep busy; with more they wait for each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Protocol

ROUNDS = 3
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

    def seconds(n: int) -> float:
        engine.fix_threads(n)
        began = clock()
        engine.advance(length, 1, engine.n_layer, tokens=[0], logits=True)
        took = clock() - began
        engine.roll_back(length)
        return took

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
