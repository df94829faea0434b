"""What decoding runs at on a device: one row times matrices of weights, which is reading them, with ggml's own kernels.

The weights of all types together are more than caches hold, and take turns, so that each is read from memory as in a
model. What is measured is the least of several rounds: other programs make it slower, nothing makes it faster.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from specee.native import cpu, ggml, library
from specee.native.errors import NativeError
from specee.native.ggml import Ggml
from specee.native.thread_tuning import counts

TYPES = {"Q4_K": 12, "Q6_K": 14, "Q8_0": 8, "Q5_K": 13, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q3_K": 11, "IQ4_XS": 23}
TYPES |= {"MXFP4": 39, "F16": 1, "BF16": 30, "IQ4_NL": 20, "Q2_K": 10}
"""Types of weights in common files, by name; their numbers are those of enum ggml_type."""
MAIN = "Q4_K"
N_IN, N_OUT = 2048, 4096
TYPE_BYTES = 16 << 20
ROWS = (1, 2, 4, 8)
SPREAD = 4  # types between steps of several rows with the weights of one
ROUNDS = 5
SECONDS = 0.15  # after which no round begins
N_SMALL = 64
TOKENS, HEAD_DIM, HEADS, HEADS_KV, LAYERS = 512, 128, 12, 2, 16
"""Of a window whose keys and values are attended to."""
PRODUCTS, OTHERS = 9, 16  # operations in a layer
BUSY = 0.85  # of the time of its threads that a computation has, at least, where nobody else wants the cores
PASSES = 6
_PRODUCTS, _SUMS, _ATTENTION = "products", "sums", "attention"


@dataclass(frozen=True)
class Speed:
    """`rates`: bytes of weights a second that a single row reads, by their type; `rows`: seconds of n rows, of those of
    a single one, by n; `attention`: bytes a second of keys and values, counted for each head that attends to them;
    `layer`: seconds in a layer that neither of these explains. `threads` that measured; `busy`: fewer than were asked
    for, because other programs keep cores busy, or these had not all of their time."""

    rates: dict[str, float]
    rows: dict[int, float]
    attention: float
    layer: float
    threads: int
    busy: bool


def gpus() -> list[Any]:
    """Handles of the GPUs that this build can use."""
    return ggml.load().devices(ggml.GPU, ggml.INTEGRATED_GPU)


def describe(device: Any) -> tuple[str, int, int]:
    """Name, free and all bytes."""
    found = ggml.load()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    found.backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    name = found.backend_dev_description(device)
    return (name or b"GPU").decode("utf-8", "replace"), free.value, total.value


def measure(device: Any = None, threads: int = 1) -> Speed:
    """Takes less than half a second. `device` None: the CPU. Raises NativeError where there is no memory for it.

    One thread's own time counts, which other programs hardly change.
    """
    library.need_memory("measuring the speed", len(TYPES) * TYPE_BYTES)
    found = ggml.load()
    on_cpu = device is None
    device = device or found.devices(ggml.CPU)[0]
    with ExitStack() as stack:
        backend = found.backend_dev_init(device, None)
        stack.callback(found.backend_free, backend)
        bench = _Bench(found, device, backend, stack)
        used = bench.settle(threads) if on_cpu else threads
        steps = {
            (_PRODUCTS, 1): bench.products(TYPES["Q8_0"], 64, 64, N_SMALL),
            (_SUMS, 1): bench.sums(N_SMALL),
            (_ATTENTION, 1): bench.attention(),
        }
        n_bytes = {name: found.row_size(kind, N_IN) * N_OUT for name, kind in TYPES.items()}
        numbers = {name: max(1, TYPE_BYTES // n_bytes[name]) for name in TYPES}
        more = [n for n in ROWS if n > 1]
        for i, (name, kind) in enumerate(TYPES.items()):
            if bench.layout(kind, N_IN) is not None:
                steps[name, 1] = bench.products(kind, N_IN, N_OUT, numbers[name])
            if more and i % SPREAD == SPREAD - 1:  # the caches hold other weights by now
                n = more.pop(0)
                steps[MAIN, n] = bench.products(TYPES[MAIN], N_IN, N_OUT, numbers[MAIN], n)
        clock = time.thread_time if on_cpu and used == 1 else time.perf_counter
        spent, began = time.process_time(), time.perf_counter()
        least = bench.least_seconds(steps, clock)
        share = (time.process_time() - spent) / (time.perf_counter() - began) / used
    product, other = (least[name, 1] / N_SMALL for name in (_PRODUCTS, _SUMS))
    return Speed(
        rates={name: numbers[name] * n_bytes[name] / least[name, 1] for name in TYPES if (name, 1) in least},
        rows={n: least[MAIN, n] / least[MAIN, 1] for n in ROWS},
        attention=2 * LAYERS * TOKENS * HEADS * HEAD_DIM * 2 / least[_ATTENTION, 1],
        layer=PRODUCTS * product + OTHERS * other,
        threads=used,
        busy=on_cpu and (used < min(threads, cpu.usable_cores()) or share < BUSY),
    )


class _Bench:
    """Steps to time on a device; what they need lives as long as `stack`."""

    def __init__(self, found: Ggml, device: Any, backend: Any, stack: ExitStack) -> None:
        self._ggml, self._device, self._backend, self._stack = found, device, backend, stack
        self._weights: dict[tuple[int, int, int, int], list[Any]] = {}

    def settle(self, threads: int) -> int:
        """The most threads, up to `threads`, that get the time of their cores."""
        step = self.products(TYPES["Q8_0"], 256, 256, 8)
        for n in counts(min(threads, cpu.usable_cores())):
            self._ggml.set_threads(self._device, self._backend, n)
            used, began = time.process_time(), time.perf_counter()
            for _ in range(PASSES):
                step()
            if time.process_time() - used >= BUSY * n * (time.perf_counter() - began):
                return n
        return 1

    def products(self, kind: int, n_in: int, n_out: int, n: int, rows: int = 1) -> Callable[[], object]:
        """n matrices of weights, one after the other, times so many rows."""
        key = (kind, n_in, n_out, n)
        if key not in self._weights:
            self._weights[key] = self._matrices(*key)
        weights = self._weights[key]
        context = self._stack.enter_context(self._ggml.context(2 * n + 2, 2 * n + 2))
        x = self._ggml.new_tensor_2d(context, ggml.F32, n_in, rows)
        return self._step(context, [self._ggml.mul_mat(context, one, x) for one in weights])

    def sums(self, n: int) -> Callable[[], object]:
        """n small operations that are no products."""
        context = self._stack.enter_context(self._ggml.context(2 * n + 2, 2 * n + 2))
        x = self._ggml.new_tensor_2d(context, ggml.F32, N_IN, 1)
        return self._step(context, [self._ggml.add(context, x, x) for _ in range(n)])

    def attention(self) -> Callable[[], object]:
        """One row attends to the keys and values of some layers: two products for each."""
        shapes = ((HEAD_DIM, TOKENS), (TOKENS, HEAD_DIM))
        context = self._stack.enter_context(self._ggml.context(6 * LAYERS, 6 * LAYERS))
        new = self._ggml.new_tensor_3d
        results = []
        for _ in range(LAYERS):
            for n_in, n_out in shapes:
                kept = new(context, ggml.F16, n_in, n_out, HEADS_KV)
                results.append(self._ggml.mul_mat(context, kept, new(context, ggml.F32, n_in, 1, HEADS)))
        return self._step(context, results)

    def least_seconds(
        self, steps: dict[tuple[str, int], Callable[[], object]], clock: Callable[[], float]
    ) -> dict[tuple[str, int], float]:
        least = dict.fromkeys(steps, float("inf"))
        began = clock()
        for number in range(ROUNDS):
            for key, step in steps.items():
                if number and clock() - began > SECONDS:
                    return least
                started = clock()
                step()
                least[key] = min(least[key], clock() - started)
        return least

    def _matrices(self, kind: int, n_in: int, n_out: int, n: int) -> list[Any]:
        """In the layout that llama.cpp takes for such weights."""
        context = self._stack.enter_context(self._ggml.context(n))
        made = [self._ggml.new_tensor_2d(context, kind, n_in, n_out) for _ in range(n)]
        self._memory(context, self.layout(kind, n_in))
        return made

    def layout(self, kind: int, n_in: int) -> Any:
        """Of weights of this type; None where the device cannot multiply them."""
        layouts = self._ggml.weight_layouts(self._device)
        return next((one for one in layouts if self._suits(one, kind, n_in)), None)

    def _memory(self, context: Any, layout: Any) -> None:
        """For the tensors of a context. Raises NativeError where there is none."""
        if layout is None or not self._stack.enter_context(self._ggml.buffer(context, layout)):
            raise NativeError("There is no memory", "too little is left for measuring the speed; close other programs")

    def _suits(self, layout: Any, kind: int, n_in: int) -> bool:
        with self._ggml.context(8) as context:
            weights = self._ggml.new_tensor_2d(context, kind, n_in, 64)
            with self._ggml.buffer(context, layout) as buffer, self._ggml.context(8) as inputs:
                x = self._ggml.new_tensor_2d(inputs, ggml.F32, n_in, 1)
                product = self._ggml.mul_mat(inputs, weights, x)
                return bool(buffer) and bool(self._ggml.backend_dev_supports_op(self._device, product))

    def _step(self, context: Any, results: Sequence[Any]) -> Callable[[], object]:
        graph = self._ggml.new_graph_custom(context, 2 * len(results) + 2, False)
        for result in results:
            self._ggml.build_forward_expand(graph, result)
        self._memory(context, self._ggml.backend_dev_buffer_type(self._device))
        return lambda: self._ggml.backend_graph_compute(self._backend, graph)
