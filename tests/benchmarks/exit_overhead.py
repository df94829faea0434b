"""What rows in flight and exits cost on this machine: `python tests/benchmarks/exit_overhead.py MODEL.gguf`.

Alternates, in one run: tokens run whole, the same through 8 ranges of layers, and the same with a probe (lens, rows of
the LM head, features, predictor) after each of the first 7. Medians and ratios: machines are noisy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from common import N_CTX, N_PROMPT, add_model, parser, spread
from numpy.typing import NDArray

from specee.native import library
from specee.native.engine import Model, RowEngine, Sampler

K, N_HIDDEN, N_SHORT, DRAFT_RANK = 4, 512, 8192, 160
N_RANGES = 8
CANDIDATES = [10, 20, 30, 40]


def q8_zeros(rows: int, columns: int) -> NDArray[np.uint8]:
    """Blocks of the right size; the time of a multiplication does not depend on the values."""
    return np.zeros((rows, columns // 32 * 34), np.uint8)


def give_weights(engine: RowEngine, layers: list[int]) -> None:
    """Square lenses and predictors at some layers, a shortlist of the usual size."""
    n, w = engine.n_embd, np.zeros(N_HIDDEN, np.float32)
    for layer in layers:
        engine.set_lens(layer, q8_zeros(n, n), None, np.ones(n, np.float32))
        engine.set_predictor(layer, np.zeros((N_HIDDEN, 3 * K), np.float32), w, w, 0.0)
    shortlist = np.arange(N_SHORT, dtype=np.int32)
    engine.set_shortlist(shortlist, q8_zeros(N_SHORT, n))
    engine.set_draft(
        q8_zeros(DRAFT_RANK, 2 * n), shortlist, q8_zeros(N_SHORT, DRAFT_RANK), np.zeros(N_SHORT, np.float32)
    )


class Bench:
    """One model in two contexts: plain, and with lenses."""

    def __init__(self, model: Model, n_threads: int | None, tokens: int) -> None:
        prompt = [int(t) for t in np.random.default_rng(0).integers(3, 1000, N_PROMPT)]
        self.plain, self.with_exits = (RowEngine(model, n_ctx=N_CTX, n_threads=n_threads) for _ in range(2))
        self.cuts = [model.n_layer * i // N_RANGES for i in range(N_RANGES + 1)]
        self.greedy, self.tokens, self.start = Sampler(model), tokens, len(prompt)
        give_weights(self.with_exits, self.cuts[1:-1])
        for engine in (self.plain, self.with_exits):
            engine.prefill(prompt)

    def _run(self, engine: RowEngine, step: Callable[[RowEngine, int], None]) -> float:
        """Median seconds a token."""
        engine.roll_back(self.start)
        times = []
        for i in range(self.tokens):
            begin = time.perf_counter()
            step(engine, 100 + i)
            engine.greedy(0, self.greedy)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    def whole(self) -> float:
        return self._run(self.plain, lambda engine, token: engine.forward(token))

    def ranges(self) -> float:
        def step(engine: RowEngine, token: int) -> None:
            row = engine.append(token)
            for _, end in pairwise(self.cuts):
                engine.advance((row,), end, logits=end == engine.n_layer)
            engine.commit(row)

        return self._run(self.plain, step)

    def probes(self) -> float:
        """As the policies take them: one call runs the row from exit layer to exit layer."""
        return self._run(self.with_exits, lambda engine, token: self._run_up(engine, token, self.cuts[1:-1], K))

    def shortlist_probe(self) -> float:
        """One probe of the shortlist, after all layers but the last eighth."""
        return self._run(self.with_exits, lambda engine, token: self._run_up(engine, token, self.cuts[-2:-1], 0))

    def _run_up(self, engine: RowEngine, token: int, layers: list[int], k: int) -> None:
        row = engine.append(token)
        engine.run_to_exit(row, layers, k, CANDIDATES[:k], 1.0)
        engine.complete(logits=True)
        engine.commit(row)

    def alone(self, call: Callable[[int], object], n: int = 40) -> float:
        """Median seconds of a call on a row, after a part of that row has gone through the caches."""
        engine, times = self.with_exits, []
        for _ in range(n):
            engine.roll_back(self.start)
            row = engine.append(5)
            engine.advance((row,), self.cuts[-2])
            begin = time.perf_counter()
            call(row)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)


def measure(path: Path, n_threads: int | None, tokens: int, rounds: int) -> None:
    """Print the table for one model."""
    bench = Bench(Model(path), n_threads, tokens)
    runs = (bench.whole, bench.ranges, bench.probes, bench.shortlist_probe)
    rows = [[run() for run in runs] for _ in range(rounds + 1)][1:]  # graphs are built in the first round
    token = statistics.median(row[0] for row in rows)
    print(f"{path.name}: {bench.plain.n_threads} threads, {tokens} tokens x {rounds} rounds, {library.cpu_buffers()}")
    print(f"  a token whole            {token * 1e3:9.3f} ms")
    ratio, low, high = spread(ranges / whole for whole, ranges, _, _ in rows)
    print(f"  in {N_RANGES} ranges of layers    x {ratio:8.3f}    ({low:.3f} to {high:.3f})")
    probe, low, high = spread((probes - ranges) / (N_RANGES - 1) / whole for whole, ranges, probes, _ in rows)
    print(f"  a probe                  {probe * token * 1e6:9.1f} us {probe:7.2%} ({low:.2%} to {high:.2%})")
    short = statistics.median((row[3] - row[0]) / row[0] for row in rows)
    print(f"  a probe of the shortlist {short * token * 1e6:9.1f} us {short:7.2%}")
    engine = bench.with_exits
    calls: dict[str, Callable[[int], object]] = {
        "draft head": lambda row: engine.draft(row, 5, K),
        "full head": engine.lens_head,
        "K/V of one range": engine.propagate_kv,
    }
    for name, call in calls.items():
        seconds = bench.alone(call)
        print(f"  {name:<24} {seconds * 1e6:9.1f} us {seconds / token:7.2%}")


def main() -> None:
    """Entry point."""
    options_ = parser(__doc__, rounds=9)
    add_model(options_)
    options_.add_argument("--tokens", type=int, default=64)
    options = options_.parse_args()
    measure(options.model, options.threads, options.tokens, options.rounds)


if __name__ == "__main__":
    main()
