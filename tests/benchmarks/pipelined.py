"""What pipelining gives where the layers are on two devices: `python tests/benchmarks/pipelined.py MODEL.gguf`

Two workers of llama.cpp's RPC back end on the loopback, with one thread each, each on a core of its own. The same split
of the layers decodes without drafts, with chains of drafts, and pipelined, in turns: tokens a second as ratios to the
first, and how busy the workers were (their CPU time by the time that passed). Drafts come from a drafter that knows
the answer and is right with a given probability, and from the text so far (`suffix`). The library must be built with
GGML_RPC.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import spread

from specee.native import library
from specee.native.engine import Model, RowEngine, Sampler
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding import driver
from specee.predictors.decoding.build_policy import build_chain, build_pipelined
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.state import begin_decoding
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.guess import Guess, Guesser
from specee.predictors.drafters.suffix import SuffixGuesser
from specee.predictors.drafters.termination import FixedLength

PROMPT = "The three laws of thermodynamics, explained to a child:"
EQUAL = CostModel({1: 1.0, 8: 1.01})


class Oracle:
    """Knows the answer, and is right about each of its tokens with probability p."""

    name = "oracle"

    def __init__(self, answer: list[int], p: float) -> None:
        rng = np.random.default_rng(0)
        self._guesses = [token if rng.random() < p else token + 1 for token in answer]
        self._at = self._ahead = 0

    def begin(self, tokens: Any) -> None:
        self._at = 0

    def guess(self, context: Any, row: int | None) -> Guess | None:
        self._ahead = self._at if row is not None else self._ahead + 1
        return Guess(self._guesses[self._ahead], 1.0, None) if self._ahead < len(self._guesses) else None

    def accept(self, token: int) -> None:
        self._at += 1

    def learn(self, kind: Any, hit: bool) -> None: ...


@dataclass
class Device:
    """A worker."""

    process: subprocess.Popen[bytes]
    endpoint: str

    def cpu_seconds(self) -> float:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Times:
    """Of one way to decode, a number for each round."""

    seconds: list[float] = field(default_factory=list)
    busy: list[list[float]] = field(default_factory=list)
    acceptance: float | None = None
    per_step: float | None = None


def rpc() -> Any:
    """ggml's RPC back end."""
    folder = library.loaded().directory
    return ctypes.CDLL(str(folder / library.library_name().replace("llama", "ggml-rpc")))


def serve(endpoint: str, core: int) -> None:
    """A worker: never returns."""
    os.sched_setaffinity(0, {core})
    library.load()
    base = ctypes.CDLL(str(library.loaded().directory / library.library_name().replace("llama", "ggml")))
    base.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    cpu = (ctypes.c_void_p * 1)(base.ggml_backend_dev_by_type(0))
    rpc().ggml_backend_rpc_start_server(endpoint.encode(), None, ctypes.c_size_t(1), ctypes.c_size_t(1), cpu)
    raise SystemExit(f"no server at {endpoint}")


@contextmanager
def workers(n: int) -> Iterator[list[Device]]:
    devices: list[Device] = []
    try:
        for core in sorted(os.sched_getaffinity(0))[:n]:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                endpoint = f"127.0.0.1:{free.getsockname()[1]}"
            command = [sys.executable, __file__, "--serve", endpoint, str(core)]
            devices.append(Device(subprocess.Popen(command, stdout=subprocess.DEVNULL), endpoint))
        for device in devices:
            host, _, port = device.endpoint.partition(":")
            until = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection((host, int(port))).close()
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
        yield devices
    finally:
        for device in devices:
            device.process.kill()
            device.process.wait()


def open_split(path: Path, devices: list[Device], layers: list[int]) -> Model:
    """The first `layers[0]` layers on the first device, and so on; the LM head on the last one."""
    library.load()
    import llama_cpp.llama_cpp as llama

    lib = rpc()
    lib.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    base = ctypes.CDLL(str(library.loaded().directory / library.library_name().replace("llama", "ggml-base")))
    base.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    found = [
        base.ggml_backend_reg_dev_get(lib.ggml_backend_rpc_add_server(device.endpoint.encode()), 0)
        for device in devices
    ]
    shares = (ctypes.c_float * 128)(*layers)
    shares[len(layers) - 1] += 1  # the LM head
    default = llama.llama_model_default_params

    def split_params() -> Any:
        params = default()
        params.devices = ctypes.cast((ctypes.c_void_p * (len(found) + 1))(*found, None), type(params.devices))
        params.tensor_split = ctypes.cast(shares, type(params.tensor_split))
        return params

    llama.llama_model_default_params = split_params
    try:
        return Model(path, gpu_layers=1 << 10)
    finally:
        llama.llama_model_default_params = default


def halves(path: Path, n: int) -> list[int]:
    """Layers of each of n devices, so that all have equal weights to read; the LM head counts for the last one."""
    import gguf

    layers: dict[int, int] = {}
    head = embeddings = 0
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name.startswith("blk."):
            layer = int(tensor.name.split(".")[1])
            layers[layer] = layers.get(layer, 0) + int(tensor.n_bytes)
        elif tensor.name == "output.weight":
            head = int(tensor.n_bytes)
        elif tensor.name == "token_embd.weight":
            embeddings = int(tensor.n_bytes)
    share = (sum(layers.values()) + (head or embeddings)) / n
    ends = [round(share * (i + 1) / (sum(layers.values()) / len(layers))) for i in range(n - 1)] + [len(layers)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


class Bench:
    """Decodes the same answer in several ways."""

    def __init__(self, model: Model, devices: list[Device], n_tokens: int) -> None:
        self.engine, self.devices, self.n_tokens = RowEngine(model, n_ctx=1024), devices, n_tokens
        self.sampler = Sampler(model)
        self.prompt = model.tokenize(PROMPT, bos=True)
        self.times: dict[str, Times] = {}
        self.answer: list[int] = []

    def ways(self, acceptances: list[float], width: int) -> dict[str, Any]:
        """The policies by their names."""
        stages = self.engine.stages
        guessers: dict[str, Any] = {f"p {p:g}": lambda p=p: Oracle(self.answer, p) for p in acceptances}
        guessers["suffix"] = SuffixGuesser

        def drafter(name: str, length: int) -> ChainDrafter:
            guesser: Guesser = guessers[name]()
            return ChainDrafter([guesser], EQUAL, None, FixedLength(length))

        ways: dict[str, Any] = {"dense": Dense}
        for name in guessers:
            ways[f"pipelined, {name}"] = lambda name=name: build_pipelined(stages, None, drafter(name, len(stages)))
            ways[f"chain of {width}, {name}"] = lambda name=name: build_chain(drafter(name, width - 1))
            ways[f"pipelined, {width} rows, {name}"] = lambda name=name: build_pipelined(
                stages, None, drafter(name, len(stages) * width), width
            )
        return ways

    def run(self, name: str, policy: Any, *, counts: bool = True) -> list[int]:
        self.engine.prefill(self.prompt)
        state = begin_decoding(
            self.engine, self.prompt, self.sampler, np.random.default_rng(0), self.n_tokens
        )
        cpu, began = [device.cpu_seconds() for device in self.devices], time.perf_counter()
        for _ in driver.run(policy, self.engine, state):
            pass
        seconds = time.perf_counter() - began
        if counts:
            times = self.times.setdefault(name, Times())
            times.seconds.append(seconds)
            times.busy.append([(d.cpu_seconds() - c) / seconds for d, c in zip(self.devices, cpu, strict=True)])
            times.acceptance, times.per_step = state.stats.acceptance, state.stats.tokens_per_step
        return state.tokens


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    parser = common.parser(__doc__, 3)
    common.add_model(parser)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--layers", type=int, nargs="*", help="of each device; by default so that they take as long")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--acceptance", type=float, nargs="*", default=[0.5, 0.7, 1.0])
    parser.add_argument("--width", type=int, default=3, help="rows of a batch")
    given = parser.parse_args()
    with workers(given.devices) as devices:
        model = open_split(given.model, devices, given.layers or halves(given.model, given.devices))
        bench = Bench(model, devices, given.tokens)
        print(f"{given.model.name}: stages end at {bench.engine.stages} of {bench.engine.n_layer} layers")
        bench.answer = bench.run("dense", Dense(), counts=False)
        ways = bench.ways(given.acceptance, given.width)
        for i in range(given.rounds + 1):  # the first one builds graphs
            for name, make in ways.items():
                tokens = bench.run(name, make(), counts=i > 0)
                if tokens != bench.answer:
                    raise SystemExit(f"{name}: another text")
        dense = bench.times["dense"]
        print(f"{'':26} tokens/s  of dense (least, most)  busy        right  tokens a pass")
        for name, times in bench.times.items():
            ratio = spread(a / b for a, b in zip(dense.seconds, times.seconds, strict=True))
            busy = " ".join(f"{np.median(each):4.0%}" for each in zip(*times.busy, strict=True))
            right = "" if times.acceptance is None else f"{times.acceptance:.2f}"
            print(
                f"{name:26} {len(bench.answer) / np.median(times.seconds):8.1f}  {ratio[0]:.2f} ({ratio[1]:.2f}, "
                f"{ratio[2]:.2f})        {busy}   {right:5} {times.per_step:.2f}"
            )
        bench.sampler.close()
        bench.engine.close()
        model.close()


if __name__ == "__main__":
    main()
