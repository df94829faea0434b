"""What rows in flight cost on this machine: `python -m specee.native.overhead [MODEL.gguf]`.

Alternates, in one run, tokens run whole and tokens run through 8 segments, and prints the ratio; then times the parts
of a probe alone. Medians: machines are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from specee.native.engine import Model, RowEngine, Sampler

K, RANK, N_HIDDEN, N_SHORT = 4, 128, 512, 8192
N_SEGMENTS = 8


def q8_zeros(rows: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Blocks of the right size; the time of a multiplication does not depend on the values."""
    return np.zeros((rows, columns // 32 * 34), np.uint8)


def median_us(call: Callable[[], object], n: int) -> float:
    """Median time of one call in microseconds."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def measure(path: str, n_threads: int | None, tokens: int, rounds: int) -> None:
    """Print the table for one model."""
    model = Model(path)
    engine = RowEngine(model, n_ctx=2048, n_threads=n_threads)
    greedy = Sampler(model)
    last = engine.n_layer
    cuts = [last * i // N_SEGMENTS for i in range(N_SEGMENTS + 1)]
    engine.prefill([int(t) for t in np.random.default_rng(0).integers(3, 1000, 64)])
    start_length = engine.length
    layer = cuts[-2]
    engine.set_lens(
        layer, q8_zeros(RANK, engine.n_embd), q8_zeros(engine.n_embd, RANK), np.ones(engine.n_embd, np.float32)
    )
    w = np.zeros(N_HIDDEN, np.float32)
    engine.set_predictor(layer, np.zeros((N_HIDDEN, 3 * K), np.float32), w, w, 0.0)
    shortlist = np.arange(N_SHORT, dtype=np.int32)
    bias = np.zeros(N_SHORT, np.float32)
    engine.set_margin(layer, shortlist, q8_zeros(N_SHORT, RANK), bias)
    engine.set_draft(q8_zeros(RANK, 2 * engine.n_embd), shortlist, q8_zeros(N_SHORT, RANK), bias)

    def run(ends: list[int]) -> float:
        """Milliseconds a token, median."""
        engine.roll_back(start_length)
        times = []
        for i in range(tokens):
            start = time.perf_counter()
            pos = engine.length
            for begin, end in pairwise(ends):
                engine.advance(pos, 1, end, tokens=[100 + i] if begin == 0 else None, logits=end == last)
            engine.greedy(0, greedy)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e3

    run([0, last]), run(cuts)
    ratios, whole = [], []
    for _ in range(rounds):
        a, b = run([0, last]), run(cuts)
        whole.append(a)
        ratios.append(b / a)
    token_us = statistics.median(whole) * 1e3
    print(f"{model.path.name}: {engine.n_threads} threads, {tokens} tokens x {rounds} rounds")
    print(f"  a token whole                {token_us / 1e3:8.3f} ms")
    print(
        f"  the same in {N_SEGMENTS} segments       x {statistics.median(ratios):6.3f}"
        f"   ({min(ratios):.3f} to {max(ratios):.3f})"
    )
    pos = engine.length
    engine.advance(pos, 1, layer, tokens=[5])
    candidates = np.array([10, 20, 30, 40], np.int32)

    def segments() -> None:
        """Cold caches, as between two probes of a real answer: the layers' weights go through them."""
        engine.roll_back(pos)
        engine.advance(pos, 1, layer, tokens=[5])

    def cold(call: Callable[[], object], n: int = 30) -> float:
        times = []
        for _ in range(n):
            segments()
            times.append(median_us(call, 1))
        return statistics.median(times)

    for name, call in (
        ("probe", lambda: engine.probe(pos, candidates)),
        ("margin rule", lambda: engine.margin(pos)),
        ("draft head", lambda: engine.draft(pos, 5, K)),
        ("full head", lambda: engine.lens_head(pos)),
        ("propagate", lambda: engine.propagate(pos, 1)),
    ):
        us = cold(call)
        print(f"  {name:<28} {us:8.1f} us   {us / token_us:7.2%} of a token")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a GGUF file (default: the embedded model)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    path = options.model
    if path is None:
        from importlib import resources

        path = str(resources.files("specee.models") / "data" / "smollm2-135m.gguf")
    measure(path, options.threads, options.tokens, options.rounds)


if __name__ == "__main__":
    main()
