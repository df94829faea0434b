"""How right `models recommend` is: tokens a second that it expects of models, and those that they decode.

`python tests/benchmarks/speed_estimates.py MODEL.gguf...` measures the machine and decodes with each model in turn, in
one process, round after round, so that a busy machine harms both alike; the best of the rounds counts. With one thread
its own time is what counts, which other programs hardly change. Tokens are decoded after as many as the estimate
assumes to be in the window. Ratios are of the rates, estimate over truth; where a file has the size of one in the
registry, also of what would have been expected before its download.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from common import parser, some_tokens

from specee.app import machine
from specee.app.recommend import estimate
from specee.app.recommend.facts import from_entry, from_header
from specee.app.recommend.machine import DecodingSpeed
from specee.models import gguf_header, registry
from specee.native import decoding_speed
from specee.native.engine import Model, RowEngine

N_CTX = 1024
N_TOKENS = 8  # of a round
TOLERANCE = 0.2


def decode(engine: RowEngine, threads: int) -> float:
    """Seconds of a token: the least of some."""
    engine.fix_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter  # as the measurement does
    times = []
    for token in some_tokens(N_TOKENS):
        began = clock()
        engine.forward(token)
        times.append(clock() - began)
    engine.roll_back(estimate.FILL - N_TOKENS // 2)
    return min(times)


def merged(speeds: list[decoding_speed.Speed]) -> DecodingSpeed:
    """The best that was seen."""
    rates: dict[str, float] = defaultdict(float)
    for speed in speeds:
        for kind, rate in speed.rates.items():
            rates[kind] = max(rates[kind], rate)
    attention, layer = max(speed.attention for speed in speeds), min(speed.layer for speed in speeds)
    return DecodingSpeed(rates, {}, attention, layer)


def main() -> None:
    options = parser(__doc__, 5)
    options.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="GGUF files")
    given = options.parse_args()
    threads = given.threads or machine.default_threads()
    engines = {}
    for path in given.models:
        engine = engines[path] = RowEngine(Model(path), n_ctx=N_CTX, n_threads=threads)
        engine.prefill(some_tokens(estimate.FILL - N_TOKENS // 2))
    speeds, truths = [], defaultdict(list)
    for _ in range(given.rounds):
        speeds.append(decoding_speed.measure(threads=threads))
        used = speeds[-1].threads
        for path, engine in engines.items():
            truths[path].append(decode(engine, used))
    speed = merged(speeds)
    if any(found.busy for found in speeds):
        print(f"the machine is busy: {min(found.threads for found in speeds)} of {threads} threads; ratios only")
    rates = ", ".join(f"{kind} {rate / 1e9:.1f}" for kind, rate in speed.rates.items())
    print(f"GB/s with one row: {rates}; a layer {speed.layer * 1e6:.0f} us")
    print(f"{'tokens/s of':<40}{'estimate':>10}{'truth':>10}{'ratio':>8}")
    by_size = {entry.bytes: entry for entry in registry.entries().values()}
    for path, engine in engines.items():
        truth = min(truths[path])
        known = {path.stem: from_header(gguf_header.read_model(path))}
        if (entry := by_size.get(path.stat().st_size)) is not None:
            known["  before its download"] = from_entry(entry)
        for name, facts in known.items():
            seconds = estimate.seconds_per_token(facts, speed)
            assert seconds is not None
            far = "" if abs(truth / seconds - 1) <= TOLERANCE else "  OFF"
            print(f"{name:<40}{1 / seconds:>10.1f}{1 / truth:>10.1f}{truth / seconds:>8.2f}{far}")
        engine.close()


if __name__ == "__main__":
    main()
