"""What rows cost and give whose layers are on another device, as JSON: `rows_on_worker.py FOLDER LAYERS`.

The device is a worker of llama.cpp's RPC back end on the loopback, which computes on the CPU. In a process of its own:
a device stays known to the process that asked for it.
"""

from __future__ import annotations

import ctypes
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import tiny_eagle
import tiny_gguf
from helpers import append_all
from test_probe import K, Twin

from specee.native import library
from specee.native.abi import int32_p
from specee.native.eagle_head import EagleHead
from specee.native.engine import Cancelled, Model, RowEngine
from specee.native.layer_states import LayerStatesEngine

PROMPT = list(range(3, 15))
BEYOND = 2.0  # no score is
EXITS = (1, 2, 4)
HEAD_LAYERS = (1, 3, 5)  # that the EAGLE-3 head reads
SERVER = """
import ctypes, sys
base, cpu, ggml, rpc = (ctypes.CDLL(f"{sys.argv[1]}/libggml{part}.so") for part in ("-base", "-cpu", "", "-rpc"))
ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
devices = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_type(0))
rpc.ggml_backend_rpc_start_server(sys.argv[2].encode(), None, ctypes.c_size_t(1), ctypes.c_size_t(1), devices)
"""


@contextmanager
def worker(libraries: Path) -> Iterator[str]:
    """One with one thread, and where it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = "{}:{}".format(*free.getsockname())
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(libraries), endpoint], stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(endpoint.split(":")[1])), 1):
                break
            time.sleep(0.02)
        yield endpoint
    finally:
        process.kill()
        process.wait()


def add_device(libraries: Path, endpoint: str) -> None:
    """The worker's device is the first of those that llama.cpp puts layers on."""
    rpc, ggml = (ctypes.CDLL(str(libraries / name)) for name in ("libggml-rpc.so", "libggml.so"))
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_register(rpc.ggml_backend_rpc_add_server(endpoint.encode()))


def crossed(engine: RowEngine, run: Callable[[], object]) -> dict[str, int]:
    """What crosses the second time: the first one builds graphs."""
    run()
    before = engine.transfers()
    run()
    return {name: n - before[name] for name, n in engine.transfers().items()}


class Rows:
    """New rows after the prompt, dropped again."""

    def __init__(self, engine: RowEngine) -> None:
        self.engine, self.length = engine, len(PROMPT)
        engine.prefill(PROMPT)

    def run(self, n: int, *stops: int) -> list[Any]:
        """The logits of n rows that stop at these layers."""
        rows = append_all(self.engine, list(range(20, 20 + n)))
        for end in (*stops, self.engine.n_layer):
            self.engine.advance(rows, end, logits=end == self.engine.n_layer)
        return self.drop([self.engine.logits(i) for i in range(n)])

    def drop(self, found: Any) -> Any:
        self.engine.roll_back(self.length)
        return found

    def probes(self, layers: list[int], candidates: Any, threshold: float = BEYOND) -> tuple[float, ...]:
        """The scores of a row that exits where one is above the threshold, or at the end."""
        row = self.engine.append(20)
        found = self.engine.run_to_exit(row, layers, len(candidates), candidates, threshold)
        if threshold < BEYOND:
            self.engine.lens_head(row)
        self.engine.complete(logits=True)
        return self.drop(found.scores)

    def probes_apart(self, layers: list[int], candidates: Any) -> tuple[float, ...]:
        """The same scores, of a row that is advanced, then probed."""
        row, scores = self.engine.append(20), []
        for layer in layers:
            self.engine.advance([row], layer)
            scores.append(self.engine.probe(row, candidates))
        return self.drop(tuple(scores))

    def states(self, stops: list[int], cancel: bool = False) -> list[Any]:
        """A row's hidden states where it stops; `cancel`: on the way to each of them for the first time."""
        row, found = self.engine.append(20), []
        for end in stops:
            if cancel:
                self.engine.cancel()
                with suppress(Cancelled):
                    self.engine.advance([row], end)
                self.engine.resume()
            self.engine.advance([row], end)
            found.append(self.engine.hidden(row))
        return self.drop(found)

    def exit_logits(self, layer: int) -> Any:
        """Of a row that exits there."""
        row = self.engine.append(20)
        self.engine.advance([row], layer)
        self.engine.lens_head(row)
        return self.drop(self.engine.logits(0))


def measure(path: Path, layers: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with closing(Model(path, gpu_layers=layers)) as model, closing(RowEngine(model, n_ctx=256, n_threads=1)) as engine:
        found |= {"n_embd": engine.n_embd, "n_vocab": engine.n_vocab, "no_exits": engine.no_exits}
        rows, n = Rows(engine), engine.n_layer
        found["dense"] = crossed(engine, lambda: rows.run(1))
        found["four rows"] = crossed(engine, lambda: rows.run(4))
        found["three ranges"] = crossed(engine, lambda: rows.run(4, 1, 2))
        twins = [Twin(engine, layer, seed=layer) for layer in EXITS]
        stops = [twin.layer for twin in twins]
        candidates = twins[0].tokens[:K]
        found["three probes"] = crossed(engine, lambda: rows.probes(stops, candidates))
        found["three margins"] = crossed(engine, lambda: rows.probes(stops, candidates[:0]))
        found["exit at the first"] = crossed(engine, lambda: rows.probes(stops, candidates, -1.0))
        whole, cut = rows.run(4), rows.run(4, *range(1, n))
        found["equal logits"] = all(map(np.array_equal, whole, cut))
        states = [rows.states([end])[0] for end in range(1, n)]
        found["equal states"] = all(map(np.array_equal, states, rows.states(list(range(1, n)))))
        found["equal after a cancel"] = all(map(np.array_equal, states, rows.states(list(range(1, n)), cancel=True)))
        found["equal scores"] = rows.probes(stops, candidates) == rows.probes_apart(stops, candidates)
        found["scores"] = rows.probes(stops, candidates)
        found["exit logits"] = [rows.exit_logits(stop).tolist() for stop in stops]
    return found


def measure_head(path: Path, layers: int) -> dict[str, Any]:
    """The same of an EAGLE-3 head, on the device where all of the model is."""
    with (
        closing(Model(path, gpu_layers=layers)) as model,
        closing(LayerStatesEngine(model, HEAD_LAYERS, n_ctx=256, n_threads=1)) as engine,
        closing(Model(tiny_eagle.write(path.with_name("head.gguf"), path, HEAD_LAYERS), gpu_layers=layers)) as drafter,
        closing(EagleHead(drafter, engine)) as head,
    ):
        rows, lib, handle = Rows(engine), head._lib, head._handle
        found: dict[str, Any] = {"dense with a head": crossed(engine, lambda: rows.run(1))}
        texts = np.array([*PROMPT[1:], 20], np.int32)
        lib.specee_eagle_head_read(handle, len(texts) - 1, int32_p(texts[:-1]), None)

        def read(*drafted: int) -> None:
            statuses = [lib.specee_eagle_head_read(handle, 1, int32_p(texts[-1:]), None)]
            statuses += [lib.specee_eagle_head_extend(handle, token) for token in drafted]
            statuses.append(lib.specee_eagle_head_roll_back(handle, len(texts) - 1))
            assert not any(statuses), library.last_error()

        found["a head reads"] = crossed(engine, read)
        found["a head reads and drafts"] = crossed(engine, lambda: read(30))
    return found


def main(folder: Path, layers: int) -> None:
    library.load()  # before the bindings are imported
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    path = tiny_gguf.write(folder / "tiny.gguf", "llama")
    libraries = library.directory()
    with worker(libraries) as endpoint:
        add_device(libraries, endpoint)
        found = {"worker": measure(path, layers), "cpu": measure(path, 0)}
        if layers > tiny_gguf.N_LAYER:
            found["worker"] |= measure_head(path, layers)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
