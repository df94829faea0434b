"""What rows in flight cost with layers on a GPU: `python tests/benchmarks/gpu.py [SHAPE | MODEL.gguf]...`

Shapes are those of random_model.py, written to a temporary folder; only their speed says anything. For each model, all
of its layers on the GPU: milliseconds of a step of 1 to 8 rows, at several lengths of the context; whether rows at once
get the bits of one; the same steps by plain llama_decode, which is what llama.cpp's own speculation pays; ranges of
layers; probes; what crosses between the host and the GPU. Then with some of the layers on the GPU. What is compared
takes turns. `--gpu-layers 0` measures the CPU alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import random_model
from common import spread
from exit_overhead import CANDIDATES, K, give_weights

from specee.native import cpu
from specee.native.engine import Model, RowEngine, Sampler

LENGTHS = (64, 1024, 4096)
SIZES = range(1, 9)
RANGES = (1, 2, 4, 8, 16)
ACCEPTANCE = 0.7
PARTS = (0.25, 0.5, 0.75)


def tokens(n: int, seed: int = 0) -> list[int]:
    """Any will do for the time; different ones, so that equal logits mean something."""
    return [int(t) for t in np.random.default_rng(seed).integers(3, 500, n)]


def step(engine: RowEngine, row_tokens: list[int], cuts: Iterable[int] = ()) -> float:
    """Milliseconds of these rows through all layers, with logits; stops at the layers of `cuts`."""
    length = engine.length
    began = time.perf_counter()
    rows: list[int] = []
    for token in row_tokens:
        rows.append(engine.append(token, rows[-1] if rows else -1))
    for _, end in pairwise([0, *cuts, engine.n_layer]):
        engine.advance(rows, end, logits=end == engine.n_layer)
    took = 1000 * (time.perf_counter() - began)
    engine.roll_back(length)
    return took


def alternate(rounds: int, what: dict[Any, Callable[[], float]]) -> dict[Any, tuple[float, float, float]]:
    """Median, least and most of each; they take turns. The first round builds graphs and does not count."""
    times: dict[Any, list[float]] = {key: [] for key in what}
    for number in range(rounds + 3):
        for key, run in what.items():
            took = run()
            if number > 2:
                times[key].append(took)
    return {key: spread(values) for key, values in times.items()}


def equal_rows(engine: RowEngine) -> dict[int, dict[str, float]]:
    """By number of rows: the share of equal bits of their logits, the largest difference, equal best tokens."""
    length, some = engine.length, tokens(8, seed=1)
    single = []
    for token in some:
        engine.forward(token)
        single.append(engine.logits(0))
    engine.roll_back(length)
    found = {}
    for n in SIZES:
        rows: list[int] = []
        for token in some[:n]:
            rows.append(engine.append(token, rows[-1] if rows else -1))
        engine.advance(rows, engine.n_layer, logits=True)
        batch = [engine.logits(i) for i in range(n)]
        engine.roll_back(length)
        pairs = list(zip(batch, single, strict=False))
        found[n] = {
            "equal": float(np.mean([np.mean(a == b) for a, b in pairs])),
            "difference": float(max(np.abs(a - b).max() for a, b in pairs)),
            "deviation": float(np.std(single)),
            "same_best": float(np.mean([a.argmax() == b.argmax() for a, b in pairs])),
        }
    return found


def chosen(engine: RowEngine, greedy: Sampler, n: int, selects: bool) -> float:
    """Milliseconds of n rows and their best tokens; the GPU selects the greatest logits, or the host gets all."""
    engine.lib.specee_rows_select_on_devices(engine._handle, 1 if selects else -1)
    length = engine.length
    began = time.perf_counter()
    rows: list[int] = []
    for token in tokens(n, seed=1):
        rows.append(engine.append(token, rows[-1] if rows else -1))
    engine.advance(rows, engine.n_layer, logits=True)
    for i in range(n):
        engine.greedy(i, greedy)
    took = 1000 * (time.perf_counter() - began)
    engine.roll_back(length)
    engine.lib.specee_rows_select_on_devices(engine._handle, 0)
    return took


def chain(engine: RowEngine, greedy: Sampler, drafts: int, acceptance: float, n_tokens: int = 64) -> float:
    """Milliseconds a token of draft chains, each drafted token accepted with this probability, with sampling."""
    rng, kept = np.random.default_rng(4), engine.length
    began, made = time.perf_counter(), 0
    while made < n_tokens:
        rows: list[int] = []
        for token in tokens(1 + drafts, seed=made):
            rows.append(engine.append(token, rows[-1] if rows else -1))
        engine.advance(rows, engine.n_layer, logits=True)
        accepted = 0
        while accepted < drafts and rng.random() < acceptance:
            engine.greedy(accepted, greedy)
            accepted += 1
        engine.greedy(accepted, greedy)
        engine.commit(rows[accepted])
        made += accepted + 1
    took = 1000 * (time.perf_counter() - began) / made
    engine.roll_back(kept)
    return took


def split_equal(engine: RowEngine) -> bool:
    """Whether a row that stops after each layer has the bits of one that does not."""
    token, length = tokens(1, seed=2)[0], engine.length
    engine.forward(token)
    whole = engine.logits(0)
    engine.roll_back(length)
    row = engine.append(token)
    for end in range(1, engine.n_layer + 1):
        engine.advance([row], end, logits=end == engine.n_layer)
    same = np.array_equal(engine.logits(0), whole)
    engine.roll_back(length)
    return same


def crossed(engine: RowEngine, run: Callable[[], object]) -> dict[str, int]:
    """What crosses between the host and the GPU, and how often the host waits; the first time builds graphs."""
    run()
    before = engine.transfers()
    run()
    return {name: n - before[name] for name, n in engine.transfers().items()}


class Plain:
    """llama_decode alone, in a context of its own: what an unpatched llama.cpp does with n rows."""

    def __init__(self, model: Model, n_ctx: int, flash_attention: bool) -> None:
        self.llama = model.llama
        params = self.llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max = n_ctx, 1
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = cpu.usable_cores()
        params.flash_attn_type = int(flash_attention)
        params.no_perf = True
        self.context = self.llama.llama_init_from_model(model.handle, params)
        self.batch = self.llama.llama_batch_init(512, 0, 1)
        self.length = 0

    def decode(self, row_tokens: list[int], all_logits: bool = True) -> None:
        n = self.batch.n_tokens = len(row_tokens)
        for i, token in enumerate(row_tokens):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, self.length + i, 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = all_logits or i == n - 1
        if self.llama.llama_decode(self.context, self.batch):
            raise RuntimeError("llama_decode failed")
        self.llama.llama_get_logits_ith(self.context, n - 1)

    def read(self, row_tokens: list[int]) -> None:
        for at in range(0, len(row_tokens), 512):
            chunk = row_tokens[at : at + 512]
            self.decode(chunk, all_logits=False)
            self.length += len(chunk)

    def step(self, row_tokens: list[int]) -> float:
        began = time.perf_counter()
        self.decode(row_tokens)
        took = 1000 * (time.perf_counter() - began)
        self.llama.llama_memory_seq_rm(self.llama.llama_get_memory(self.context), 0, self.length, -1)
        return took

    def close(self) -> None:
        self.llama.llama_batch_free(self.batch)
        self.llama.llama_free(self.context)


@contextmanager
def opened(path: Path, gpu_layers: int, n_ctx: int) -> Iterator[RowEngine]:
    with closing(Model(path, gpu_layers=gpu_layers)) as model, closing(RowEngine(model, n_ctx=n_ctx)) as engine:
        yield engine


def draft(engine: RowEngine) -> float:
    """Milliseconds of a guess by the linear head, after a row through all layers."""
    row = engine.append(5)
    engine.advance([row], engine.n_layer)
    began = time.perf_counter()
    engine.draft(row, 6, K)
    took = 1000 * (time.perf_counter() - began)
    engine.roll_back(engine.length)
    return took


def measure(path: Path, gpu_layers: int, lengths: list[int], rounds: int) -> dict[str, Any]:
    """Everything of one model with all of its layers on one side."""
    n_ctx = max(lengths) + 512
    found: dict[str, Any] = {"lengths": {}}
    with ExitStack() as stack:
        engine = stack.enter_context(opened(path, gpu_layers, n_ctx))
        plain = {
            name: stack.enter_context(closing(Plain(engine.model, n_ctx, flash)))
            for name, flash in (("plain", False), ("plain_flash", True))
        }
        for length in lengths:
            prompt = tokens(length, seed=3)
            began = time.perf_counter()
            engine.prefill(prompt)
            prefill = length / (time.perf_counter() - began)
            for other in plain.values():
                other.read(prompt[other.length :])
            work: dict[Any, Callable[[], float]] = {}
            for n in SIZES:
                some = tokens(n, seed=1)
                work["ours", n] = lambda some=some: step(engine, some)
                for name, other in plain.items():
                    work[name, n] = lambda some=some, other=other: other.step(some)
            times = alternate(rounds, work)
            found["lengths"][length] = {
                "prefill_tokens_per_second": prefill,
                "ms": {f"{name} {n}": values for (name, n), values in times.items()},
                "equal_rows": equal_rows(engine),
                "split_equal": split_equal(engine),
            }
        engine.roll_back(min(lengths))
        with closing(Sampler(engine.model)) as greedy:
            found["chain_ms"] = alternate(
                max(3, rounds // 5),
                {n: (lambda n=n: chain(engine, greedy, n, ACCEPTANCE)) for n in (0, 1, 2, 3, 4, 7)},
            )
            found["chosen_ms"] = alternate(
                rounds,
                {
                    f"{n} rows, {name}": (lambda n=n, selects=selects: chosen(engine, greedy, n, selects))
                    for n in (1, 4)
                    for name, selects in (("selected logits", True), ("all logits", False))
                },
            )
        n_layer = found["n_layer"] = engine.n_layer
        cuts = {n: [n_layer * i // n for i in range(1, n)] for n in RANGES if n <= n_layer}
        found["ranges_ms"] = alternate(
            rounds, {n: (lambda some=some: step(engine, tokens(1), some)) for n, some in cuts.items()}
        )
        probed = cuts[8]
        give_weights(engine, probed)

        def probes() -> float:
            length = engine.length
            began = time.perf_counter()
            row = engine.append(5)
            engine.run_to_exit(row, probed, K, CANDIDATES, 2.0)
            engine.complete(logits=True)
            took = 1000 * (time.perf_counter() - began)
            engine.roll_back(length)
            return took

        found["probes_ms"] = alternate(rounds, {"8 ranges, 7 probes": probes, "whole": lambda: step(engine, tokens(1))})
        found["draft_ms"] = alternate(rounds, {"draft": lambda: draft(engine)})
        found["transfers"] = {
            "1 row": crossed(engine, lambda: step(engine, tokens(1))),
            "4 rows": crossed(engine, lambda: step(engine, tokens(4))),
            "8 ranges": crossed(engine, lambda: step(engine, tokens(1), probed)),
            "8 ranges, 7 probes": crossed(engine, probes),
        }
    return found


def measure_part(path: Path, gpu_layers: int, length: int, rounds: int) -> dict[str, Any]:
    """With the first layers on the GPU: steps of 1 and 4 rows, and one row through these layers alone."""
    with opened(path, gpu_layers, length + 512) as engine:
        engine.prefill(tokens(length, seed=3))

        def first() -> float:
            kept = engine.length
            row = engine.append(5)
            began = time.perf_counter()
            engine.advance([row], gpu_layers)
            took = 1000 * (time.perf_counter() - began)
            engine.roll_back(kept)
            return took

        return alternate(
            rounds,
            {"1": lambda: step(engine, tokens(1)), "4": lambda: step(engine, tokens(4)), "first layers": first},
        )


def show(name: str, found: dict[str, Any]) -> None:
    """The tables, as Markdown."""
    for length, at in found["lengths"].items():
        times = {tuple(key.split()): values for key, values in at["ms"].items()}
        print(f"\n## {name}, {length} tokens in the context ({at['prefill_tokens_per_second']:.0f} tokens/s read)")
        print(f"split after each layer: {'equal bits' if at['split_equal'] else 'other bits'}\n")
        print(
            "| rows | ours ms (min-max) | t(n)/t(1) | llama_decode | with flash attention | equal bits | difference |"
        )
        print("|---|---|---|---|---|---|---|")
        for n in SIZES:
            median, least, most = times["ours", str(n)]
            same = at["equal_rows"][n]
            print(
                f"| {n} | {median:.2f} ({least:.2f}-{most:.2f}) | {median / times['ours', '1'][0]:.2f} "
                f"| {times['plain', str(n)][0]:.2f} | {times['plain_flash', str(n)][0]:.2f} "
                f"| {same['equal']:.4f} | {same['difference']:.2g} of {same['deviation']:.2g} |"
            )
    drafted = {n: round(1000 / values[0], 1) for n, values in found["chain_ms"].items()}
    print(f"\ndrafts a step, each accepted with {ACCEPTANCE}: tokens/s with sampling {drafted}")
    print("one row in ranges of layers:", {n: round(values[0], 3) for n, values in found["ranges_ms"].items()}, "ms")
    for key, n in found["transfers"].items():
        to_gpu, to_host = (f"{n[f'n_{way}']} ({n[f'bytes_{way}']} bytes)" for way in ("to_device", "to_host"))
        print(f"{key}: {to_gpu} to the GPU, {to_host} to the host, which waits {n['n_waits']} times")
    chosen_ms = found["chosen_ms"] | found["draft_ms"]
    print("best tokens, and a guess by the linear head:", {key: round(t[0], 3) for key, t in chosen_ms.items()}, "ms")
    print("probes:", {key: round(values[0], 3) for key, values in found["probes_ms"].items()}, "ms")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", nargs="*", default=["llama2-7b", "llama3.1-8b"], metavar="SHAPE or MODEL.gguf")
    options.add_argument("--gpu-layers", type=int, default=999)
    options.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--no-parts", action="store_true", help="not with some of the layers on the GPU")
    options.add_argument("--json", type=Path, help="where all numbers go")
    given = options.parse_args()
    every: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models:
            path = Path(name)
            if name in random_model.SHAPES:
                path = random_model.write(Path(folder, f"{name}.gguf"), name)
            every[path.stem] = found = measure(path, given.gpu_layers, given.lengths, given.rounds)
            show(path.stem, found)
            found["parts"] = {}
            n_layer = found["n_layer"]
            for part in () if given.no_parts else PARTS:
                n = round(n_layer * part)
                found["parts"][n] = times = measure_part(path, n, given.lengths[0], max(3, given.rounds // 4))
                shown = {key: round(values[0], 2) for key, values in times.items()}
                print(f"{n} of {n_layer} layers on the GPU: {shown} ms", flush=True)
            if given.json:
                given.json.write_text(json.dumps(every))


if __name__ == "__main__":
    main()
