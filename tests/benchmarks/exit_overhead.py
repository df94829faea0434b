"""What rows in flight cost on this machine: `python -m specee.native.overhead [MODEL.gguf]`.

Alternates, in one run: tokens run whole, the same through 8 segments, and the same with a look (lens, sliced head,
features, predictor) after each of the first 7. Medians and ratios: machines are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specee.native import library
from specee.native.engine import Model, RowEngine, Sampler

K, N_HIDDEN, N_SHORT, DRAFT_RANK = 4, 512, 8192, 160
N_SEGMENTS = 8
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
        prompt = [int(t) for t in np.random.default_rng(0).integers(3, 1000, 64)]
        self.plain, self.looking = (RowEngine(model, n_ctx=1024, n_threads=n_threads) for _ in range(2))
        self.cuts = [model.n_layer * i // N_SEGMENTS for i in range(N_SEGMENTS + 1)]
        self.greedy, self.tokens, self.start = Sampler(model), tokens, len(prompt)
        give_weights(self.looking, self.cuts[1:-1])
        for engine in (self.plain, self.looking):
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
        return self._run(self.plain, lambda e, t: e.advance(e.length, 1, e.n_layer, tokens=[t], logits=True))

    def segments(self) -> float:
        def step(engine: RowEngine, token: int) -> None:
            pos = engine.length
            for begin, end in pairwise(self.cuts):
                engine.advance(pos, 1, end, tokens=[token] if begin == 0 else None, logits=end == engine.n_layer)

        return self._run(self.plain, step)

    def looks(self) -> float:
        """The looks are taken as the policies take them: one call raises the row from look to look."""

        def step(engine: RowEngine, token: int) -> None:
            engine.rise(token, self.cuts[1:-1], K, CANDIDATES, 1.0)
            engine.advance(engine.length - 1, 1, engine.n_layer, logits=True)

        return self._run(self.looking, step)

    def looks_at_shortlist(self) -> float:
        """One look at the shortlist, after all layers but the last eighth."""

        def step(engine: RowEngine, token: int) -> None:
            engine.rise(token, self.cuts[-2:-1], 0, (), 1.0)
            engine.advance(engine.length - 1, 1, engine.n_layer, logits=True)

        return self._run(self.looking, step)

    def alone(self, call: Callable[[], object], n: int = 40) -> float:
        """Median seconds of a call after a part of a row has gone through the caches."""
        engine, times = self.looking, []
        for _ in range(n):
            engine.roll_back(self.start)
            engine.advance(self.start, 1, self.cuts[-2], tokens=[5])
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        return statistics.median(times)


def measure(path: Path, n_threads: int | None, tokens: int, rounds: int) -> None:
    """Print the table for one model."""
    bench = Bench(Model(path), n_threads, tokens)
    runs = (bench.whole, bench.segments, bench.looks, bench.looks_at_shortlist)
    rows = [[run() for run in runs] for _ in range(rounds + 1)][1:]  # graphs are built in the first round
    token = statistics.median(row[0] for row in rows)
    print(f"{path.name}: {bench.plain.n_threads} threads, {tokens} tokens x {rounds} rounds, {library.cpu_buffers()}")
    print(f"  a token whole            {token * 1e3:9.3f} ms")
    split = sorted(segments / whole for whole, segments, _, _ in rows)
    spread = f"({split[0]:.3f} to {split[-1]:.3f})"
    print(f"  in {N_SEGMENTS} segments            x {statistics.median(split):8.3f}    {spread}")
    looks = sorted((looks - segments) / (N_SEGMENTS - 1) / whole for whole, segments, looks, _ in rows)
    look = statistics.median(looks)
    print(f"  a look                   {look * token * 1e6:9.1f} us {look:7.2%} ({looks[0]:.2%} to {looks[-1]:.2%})")
    short = statistics.median((row[3] - row[0]) / row[0] for row in rows)
    print(f"  a look at the shortlist  {short * token * 1e6:9.1f} us {short:7.2%}")
    engine, pos = bench.looking, bench.start
    for name, call in (
        ("draft head", lambda: engine.draft(pos, 5, K)),
        ("full head", lambda: engine.lens_head(pos)),
        ("propagate one segment", lambda: engine.propagate(pos, 1)),
    ):
        seconds = bench.alone(call)
        print(f"  {name:<24} {seconds * 1e6:9.1f} us {seconds / token:7.2%}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file; `specee-chat models path` prints the embedded one")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    measure(options.model, options.threads, options.tokens, options.rounds)


if __name__ == "__main__":
    main()
