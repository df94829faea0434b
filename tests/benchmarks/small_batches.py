"""What a few rows at once cost on this machine: `python tests/benchmarks/small_batches.py [MODEL.gguf]`.

Without a model: our kernels alone, on one core, against a roofline measured on the spot. With one: t(n), the time of n
rows at once, for the layers and the head, and with `--stock PYTHON` next to it the same of an unpatched
llama-cpp-python in a process of its own, turn by turn. Medians of ratios: machines are noisy.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import N_CTX, N_PREFILL, N_PROMPT, STOCK_ENDED, add_model, parser, some_tokens, start_stock
from ggml_kernels import COLUMNS, REPACKED, REPACKED_8, ROWS, TYPES, Bytes, product, quantize, quantize_rows, repack
from ggml_kernels import columns as pack_columns
from ggml_kernels import run as multiply
from helpers import append_all

from specee.native import cpu, library
from specee.native.engine import Model, RowEngine
from specee.native.errors import NativeError

BATCHES = (1, 2, 3, 4, 6, 8)
N_IN, N_OUT = 2048, 32768  # tens of MB: no cache holds them
N_CACHED = 64  # weight rows that stay in the caches next to the core


def seconds(call: Callable[[], object], least: float = 0.1) -> float:
    """Best of several calls: what the machine can do."""
    times: list[float] = []
    until = time.perf_counter() + least
    while len(times) < 3 or time.perf_counter() < until:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def read_bandwidth() -> float:
    """Bytes a second that one core reads from memory: a search for a byte that is not there."""
    search = ctypes.CDLL(None).memchr
    search.restype = ctypes.c_void_p
    search.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    memory = np.ones(256 << 20, np.uint8)
    return len(memory) / seconds(lambda: search(memory.ctypes.data, 0, len(memory)), 1.0)


def measure_kernels() -> None:
    """Each type and batch size: bytes of weights a second, products, share of what bandwidth and core allow."""
    bandwidth = read_bandwidth()
    print(f"one core reads {bandwidth / 1e9:.1f} GB/s; GB/s of weights (GOPS, share of the roofline) for n rows")
    print("type     layout   " + "".join(f"{f'n = {n}':>22}" for n in BATCHES))
    rng = np.random.default_rng(0)
    for name in TYPES:
        some = quantize(name, rng.standard_normal((256, N_IN)).astype(np.float32))
        layouts = {"rows": (ROWS, some)}
        if name in REPACKED:
            layouts["repacked"] = (REPACKED_8, repack(name, some, N_IN))
        with contextlib.suppress(NativeError):  # not on every CPU
            layouts["columns"] = (COLUMNS, pack_columns(name, some, N_IN))
        for label, (layout, weights) in layouts.items():
            weights = np.tile(weights, (N_OUT // len(weights), 1))
            cells = [_cell(name, weights, layout, n, bandwidth) for n in BATCHES]
            print(f"{name:<8} {label:<9}" + "".join(f"{cell:>22}" for cell in cells))


def _cell(name: str, weights: Bytes, layout: int, n: int, bandwidth: float) -> str:
    rows = quantize_rows(name, np.random.default_rng(n).standard_normal((n, N_IN)).astype(np.float32))
    out = np.empty((n, len(weights)), np.float32)
    near = product(name, weights[:N_CACHED], rows, N_IN, out, layout)
    compute = seconds(lambda: multiply(near)) / N_CACHED
    whole = product(name, weights, rows, N_IN, out, layout)
    took = seconds(lambda: multiply(whole)) / len(weights)
    roof = max(weights.shape[1] / bandwidth, compute)
    gops = 2 * n * N_IN / took / 1e9
    return f"{weights.shape[1] / took / 1e9:.1f} ({gops:.0f}, {roof / took:.0%})"


# ---- whole models --------------------------------------------------------------------------------------------------

# Runs in the other interpreter: answers each line [n, times] with the seconds of each decode of n rows with logits.
STOCK = """
import ctypes, json, sys, time
import llama_cpp as l
path, threads, n_prompt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
quiet = l.llama_log_callback(lambda *a: None)
l.llama_log_set(quiet, None)
l.llama_backend_init()
params = l.llama_model_default_params()
params.n_gpu_layers = 0
model = l.llama_model_load_from_file(path.encode(), params)
params = l.llama_context_default_params()
params.n_ctx, params.n_threads, params.n_threads_batch, params.flash_attn_type = 1024, threads, threads, 0
context = l.llama_init_from_model(model, params)
memory = l.llama_get_memory(context)
batch = l.llama_batch_init(512, 0, 1)
def decode(first, n, all_logits):
    batch.n_tokens = n
    for i in range(n):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = 100 + i, first + i, 1, 0
        batch.logits[i] = all_logits or i == n - 1
    begin = time.perf_counter()
    assert l.llama_decode(context, batch) == 0
    l.llama_get_logits_ith(context, n - 1)
    return time.perf_counter() - begin
decode(0, n_prompt, False)
print("ready", flush=True)
for line in sys.stdin:
    n, times = json.loads(line)
    took = []
    for _ in range(times):
        if n > 8:  # a prompt, from nothing
            l.llama_memory_seq_rm(memory, 0, 0, -1)
            took.append(decode(0, n, False))
        else:
            l.llama_memory_seq_rm(memory, 0, n_prompt, -1)
            took.append(decode(n_prompt, n, True))
    if n > 8:
        l.llama_memory_seq_rm(memory, 0, 0, -1)
        decode(0, n_prompt, False)
    print(json.dumps(took), flush=True)
"""


class Stock:
    """An unpatched llama.cpp; its threads sleep while it is not asked."""

    def __init__(self, python: str, model: Path, n_threads: int) -> None:
        self._process = start_stock(python, STOCK, str(model), str(n_threads), str(N_PROMPT))
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline() or sys.exit(STOCK_ENDED)

    def run(self, n: int, times: int) -> float:
        """Median seconds of a decode of n rows, all with logits; n above 8: a prompt, logits for its last row."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([n, times]) + "\n")
        self._process.stdin.flush()
        return float(statistics.median(json.loads(self._line())))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Ours:
    """The runtime of this package."""

    def __init__(self, model: Path, n_threads: int) -> None:
        self.engine = RowEngine(Model(model), n_ctx=N_CTX, n_threads=n_threads)
        self.engine.prefill(some_tokens(N_PROMPT))

    def run(self, n: int, times: int, logits: bool = True) -> float:
        """As Stock.run; without `logits`: the layers alone."""
        engine, took = self.engine, []
        is_prompt, tokens = n > max(BATCHES), some_tokens(n)
        for _ in range(times):
            engine.roll_back(0 if is_prompt else N_PROMPT)
            begin = time.perf_counter()
            if is_prompt:
                engine.prefill(tokens)
            else:
                engine.advance(append_all(engine, tokens), engine.n_layer, logits)
            took.append(time.perf_counter() - begin)
        engine.roll_back(0 if is_prompt else N_PROMPT)
        if is_prompt:
            engine.prefill(some_tokens(N_PROMPT))
        return statistics.median(took)


def measure_model(model: Path, n_threads: int, rounds: int, times: int, stock_python: str | None) -> dict[str, Any]:
    """t(n) in turns; prints a table and returns the figures (seconds; medians over rounds)."""
    ours = Ours(model, n_threads)
    runs: dict[str, Callable[[int], float]] = {
        "ours": lambda n: ours.run(n, times),
        "layers": lambda n: ours.run(n, times, logits=False),
    }
    stock = Stock(stock_python, model, n_threads) if stock_python else None
    if stock:
        runs["stock"] = lambda n: stock.run(n, times)
    sizes = (*BATCHES, N_PREFILL)
    rows = [
        {name: {n: run(n) for n in sizes if n <= max(BATCHES) or name != "layers"} for name, run in runs.items()}
        for _ in range(rounds + 1)
    ][1:]
    if stock:
        stock.close()
    table: dict[str, Any] = {"model": model.name, "threads": n_threads, "kernels": library.cpu_buffers()}
    for name in runs:
        table[name] = {n: statistics.median(row[name][n] for row in rows) for n in rows[0][name]}
        table[f"{name} t(n)/t(1)"] = {
            n: statistics.median(row[name][n] / row[name][1] for row in rows) for n in BATCHES
        }
    if stock:
        table["stock / ours"] = {n: statistics.median(row["stock"][n] / row["ours"][n] for row in rows) for n in sizes}
    return table


def show(table: dict[str, Any]) -> None:
    """The figures as text."""
    print(f"{table['model']}: {table['threads']} threads, {table['kernels']}")
    print(f"{'':<24}" + "".join(f"{f'n = {n}':>9}" for n in (*BATCHES, N_PREFILL)))
    for name, figures in table.items():
        if isinstance(figures, dict):
            scale, unit = (1e3, "ms") if name in ("ours", "layers", "stock") else (1.0, "")
            cells = "".join(f"{figures[n] * scale:9.2f}" if n in figures else f"{'':>9}" for n in (*BATCHES, N_PREFILL))
            print(f"  {name + ' ' + unit:<22}" + cells)


def main() -> None:
    """Entry point."""
    options_ = parser(__doc__, rounds=7)
    add_model(options_, optional="without one the kernels alone are measured")
    options_.add_argument("--stock", metavar="PYTHON", help="an interpreter with the unpatched llama-cpp-python")
    options_.add_argument("--times", type=int, default=9, help="decodes of each size in a round")
    options_.add_argument("--json", action="store_true")
    options = options_.parse_args()
    if options.model is None:
        measure_kernels()
        return
    threads = options.threads or cpu.usable_cores()
    table = measure_model(options.model, threads, options.rounds, options.times, options.stock)
    if options.json:
        print(json.dumps(table))
    else:
        show(table)


if __name__ == "__main__":
    main()
