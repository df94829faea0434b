"""What other busy processes cost on this machine: `python tests/benchmarks/busy_neighbour.py MODEL.gguf`.

Decodes with and without processes beside it that never sleep, in turns: with all threads ("fixed"), as earlier versions
did, and with as many as have a core ("adaptive"). Means, since computation and neighbour take turns; ratios within a
round. Then the course of a decoding during which the neighbour comes and goes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from common import N_CTX, N_PREFILL, N_PROMPT, add_model, parser, some_tokens, spread
from helpers import append_all

from specee.native import cpu
from specee.native.engine import Model, RowEngine

SIZES = (1, 4, N_PREFILL)
PAUSE_SECONDS = 0.3  # until who came or went is noticed


def start_neighbours(n: int) -> list[subprocess.Popen[bytes]]:
    """Processes that never sleep."""
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End them."""
    for process in processes:
        process.kill()
        process.wait()


@contextmanager
def neighbours(n: int) -> Iterator[None]:
    """So many of them, noticed."""
    busy = start_neighbours(n)
    try:
        time.sleep(PAUSE_SECONDS)
        yield
    finally:
        stop(busy)


def step(engine: RowEngine, n: int) -> float:
    """Seconds of n rows with logits; N_PREFILL: of a prompt."""
    tokens = some_tokens(n)
    engine.roll_back(0 if n == N_PREFILL else N_PROMPT)
    begin = time.perf_counter()
    if n == N_PREFILL:
        engine.prefill(tokens)
    else:
        engine.advance(append_all(engine, tokens), engine.n_layer, logits=True)
    return time.perf_counter() - begin


def mean(engine: RowEngine, n: int, least: float) -> float:
    """Mean seconds of a step, over at least so many seconds."""
    times: list[float] = []
    while not times or sum(times) < least:
        times.append(step(engine, n))
    if n == N_PREFILL:
        engine.prefill(some_tokens(N_PROMPT))
    return statistics.mean(times)


def measure(engine: RowEngine, n_neighbours: int, rounds: int, least: float) -> None:
    """Prints the time without neighbours and the factors with them."""
    modes = {"fixed": engine.n_threads, "adaptive": 0}
    print(f"{n_neighbours} busy, {engine.n_threads} threads: ms alone, and a factor beside them (least to most)")
    for n in SIZES:
        alone: dict[str, list[float]] = {name: [] for name in modes}
        beside: dict[str, list[float]] = {name: [] for name in modes}
        for _ in range(rounds):
            for name, threads in modes.items():
                engine.fix_threads(threads)
                time.sleep(PAUSE_SECONDS)
                alone[name].append(mean(engine, n, least))
                with neighbours(n_neighbours):
                    beside[name].append(mean(engine, n, least))
        cells = []
        for name in modes:
            middle, low, high = spread(b / a for a, b in zip(alone[name], beside[name], strict=True))
            milliseconds = statistics.median(alone[name]) * 1e3
            cells.append(f"{name} {milliseconds:8.2f} ms x {middle:5.2f} ({low:.2f} to {high:.2f})")
        print(f"  {'prompt of' if n == N_PREFILL else 'n ='} {n:<4} " + "   ".join(cells), flush=True)


def course(engine: RowEngine, n_neighbours: int) -> None:
    """Prints mean milliseconds a token and threads in each fifth of a second while neighbours come and go."""
    engine.fix_threads(0)
    print("a token at a time: seconds, ms, threads; neighbours come after 1 s and go after 3 s")
    begin = time.perf_counter()
    busy: list[subprocess.Popen[bytes]] = []
    try:
        for part in range(25):
            if part == 5:
                busy = start_neighbours(n_neighbours)
            if part == 15:
                stop(busy)
            times: list[float] = []
            while not times or time.perf_counter() - begin < 0.2 * (part + 1):
                times.append(step(engine, 1))
            print(f"  {time.perf_counter() - begin:5.2f} {statistics.mean(times) * 1e3:8.2f} {engine.active_threads}")
    finally:
        stop(busy)


def main() -> None:
    """Entry point."""
    options_ = parser(__doc__, rounds=5)
    add_model(options_)
    options_.add_argument("--neighbours", type=int, default=1)
    options_.add_argument("--seconds", type=float, default=1.0, help="of each measurement, at least")
    options = options_.parse_args()
    engine = RowEngine(Model(options.model), n_ctx=N_CTX, n_threads=options.threads or cpu.usable_cores())
    engine.prefill(some_tokens(N_PROMPT))
    print(options.model.name)
    measure(engine, options.neighbours, options.rounds, options.seconds)
    course(engine, options.neighbours)


if __name__ == "__main__":
    main()
