"""One runtime in a process of its own, for compare_runtimes.py: `runtime_worker.py KIND MODEL THREADS N_CTX FLASH`.

KIND is ours or stock. It answers each line [at, n, times] with the seconds of each of so many passes of n rows with
logits, behind `at` tokens in the cache; at 0 they are a prompt, with logits for the last one. Between the lines its
threads sleep. What `stock` needs is only llama-cpp-python: it runs in interpreters without our packages.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Protocol

N_BATCH = 512


def tokens(first: int, n: int) -> list[int]:
    """Those of these positions: the time does not depend on which they are, and every vocabulary has these."""
    return [3 + position % 90 for position in range(first, first + n)]


class Runtime(Protocol):
    layouts: str  # of weights

    def roll_back(self, length: int) -> None: ...
    def read(self, length: int) -> None:
        """What is missing to so many tokens in the cache."""

    def rows(self, n: int) -> None:
        """Behind them, all with logits."""


class Ours:
    """The runtime of this package; SPECEE_LIB_DIR names another build."""

    def __init__(self, path: str, n_threads: int, n_ctx: int, flash: bool) -> None:
        import common  # noqa: F401 - finds helpers
        from helpers import append_all

        from specee.native import library
        from specee.native.engine import Model, RowEngine

        self.append_all = append_all
        self.engine = RowEngine(Model(path), n_ctx=n_ctx, n_threads=n_threads, n_batch=N_BATCH)
        self.engine.fix_threads(n_threads)  # as many as the others, who do not look whether cores are free
        self.layouts = ", ".join(library.cpu_buffers())

    def roll_back(self, length: int) -> None:
        self.engine.roll_back(min(length, self.engine.length))

    def read(self, length: int) -> None:
        self.engine.prefill(tokens(0, length))

    def rows(self, n: int) -> None:
        rows = self.append_all(self.engine, tokens(self.engine.length, n))
        self.engine.advance(rows, self.engine.n_layer, logits=True)


class Stock:
    """An unpatched llama.cpp; LLAMA_CPP_LIB_PATH names another build."""

    layouts = ""  # it does not say

    def __init__(self, path: str, n_threads: int, n_ctx: int, flash: bool) -> None:
        import llama_cpp
        from llama_cpp.llama_cpp import _lib

        if hasattr(_lib, "specee_abi_version"):
            sys.exit("stock: this llama.cpp is ours, and not an unpatched one")
        self.llama = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, None)
        llama_cpp.llama_backend_init()
        of_model = llama_cpp.llama_model_default_params()
        of_model.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), of_model)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, N_BATCH, N_BATCH
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = int(flash)
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(N_BATCH, 0, 1)
        self.length = 0

    def _decode(self, n: int, all_logits: bool) -> None:
        batch, self.batch.n_tokens = self.batch, n
        for i, token in enumerate(tokens(self.length, n)):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, self.length + i, 1, 0
            batch.logits[i] = all_logits or i == n - 1
        if self.llama.llama_decode(self.context, batch):
            sys.exit("stock: llama_decode failed")
        self.llama.llama_get_logits_ith(self.context, n - 1)
        self.length += n

    def roll_back(self, length: int) -> None:
        self.llama.llama_memory_seq_rm(self.memory, 0, length, -1)
        self.length = min(self.length, length)

    def read(self, length: int) -> None:
        while self.length < length:
            self._decode(min(N_BATCH, length - self.length), all_logits=False)

    def rows(self, n: int) -> None:
        self._decode(n, all_logits=True)


def measure(runtime: Runtime, at: int, n: int, times: int) -> list[float]:
    """Seconds of each pass; of rows, the first one builds their graph and does not count."""
    runtime.roll_back(at)
    if at:
        runtime.read(at)
    took = []
    for _ in range(times + (at > 0)):
        runtime.roll_back(at)
        began = time.perf_counter()
        if at:
            runtime.rows(n)
        else:
            runtime.read(n)
        took.append(time.perf_counter() - began)
    runtime.roll_back(at or n)
    return took[at > 0 :]


def main() -> None:
    kind, path, n_threads, n_ctx, flash = sys.argv[1:]
    kinds: dict[str, Any] = {"ours": Ours, "stock": Stock}
    runtime = kinds[kind](path, int(n_threads), int(n_ctx), flash == "1")
    measure(runtime, 0, 32, 1)  # every weight has been met once
    print(json.dumps(runtime.layouts), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(runtime, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
