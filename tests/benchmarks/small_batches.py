"""What our kernels for a few rows do on this machine: `python tests/benchmarks/small_batches.py`.

On one core, against a roofline measured on the spot. compare_runtimes.py measures whole models.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import time
from collections.abc import Callable

import common  # noqa: F401 - finds ggml_kernels
import numpy as np
from ggml_kernels import COLUMNS, REPACKED, REPACKED_8, ROWS, TYPES, Bytes, product, quantize, quantize_rows, repack
from ggml_kernels import columns as pack_columns
from ggml_kernels import run as multiply

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


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure_kernels()
