"""What pipelining gives where the layers are on two devices: `python tests/benchmarks/pipelined.py MODEL.gguf`

Two workers (llama.cpp's RPC back end) on the loopback, with one thread each, each on a core of its own. The same split
of the layers decodes without drafts, with chains of drafts, and pipelined, in turns: tokens a second, as ratios to the
first, and how busy the workers and this process were (their CPU time by the time that passed). Drafts come from a
drafter that knows the answer and is right with a given probability, and from the text so far (`suffix`). Each text must
be that of dense decoding.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from workers import worker_process

from specee.native import devices
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
class Times:
    """Of one way to decode, a number for each round."""

    seconds: list[float] = field(default_factory=list)
    busy: list[list[float]] = field(default_factory=list)
    """Of each worker, and of this process."""
    acceptance: float | None = None
    per_step: float | None = None


@dataclass
class Worker:
    """A worker's process, on a core of its own."""

    process: subprocess.Popen[str]
    endpoint: str

    def cpu_seconds(self) -> float:
        """What it has computed so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def pinned_workers(n: int) -> Iterator[list[Worker]]:
    """One for each of the first n cores."""
    with ExitStack() as stack:
        found = [Worker(*stack.enter_context(worker_process())) for _ in range(n)]
        for worker, core in zip(found, sorted(os.sched_getaffinity(0)), strict=False):
            for thread in Path(f"/proc/{worker.process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        yield found


def equal_shares(path: Path, n: int) -> list[int]:
    """Layers of each of n workers, so that all have equal weights to read; the LM head counts for the last one."""
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

    def __init__(self, model: Model, workers: list[Worker], n_tokens: int) -> None:
        self.engine, self.workers, self.n_tokens = RowEngine(model, n_ctx=1024), workers, n_tokens
        self.sampler = Sampler(model)
        self.prompt = model.tokenize(PROMPT, bos=True)
        self.engine.prefill(self.prompt)  # from now on only its last token is computed again, alone
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

    def stage_times(self) -> list[float]:
        """Milliseconds of one row in each stage, the least of some."""
        times: list[list[float]] = [[] for _ in self.engine.stages]
        length = self.engine.length
        for _ in range(12):
            row = self.engine.append(self.prompt[-1])
            for end, stage in zip(self.engine.stages, times, strict=True):
                began = time.perf_counter()
                self.engine.advance([row], end, logits=end == self.engine.n_layer)
                stage.append(1000 * (time.perf_counter() - began))
            self.engine.roll_back(length)
        return [min(stage) for stage in times]

    def run(self, name: str, policy: Any, *, counts: bool = True) -> list[int]:
        self.engine.prefill(self.prompt)
        state = begin_decoding(self.engine, self.prompt, self.sampler, np.random.default_rng(0), self.n_tokens)
        cpu, own, began = [worker.cpu_seconds() for worker in self.workers], time.process_time(), time.perf_counter()
        for _ in driver.run(policy, self.engine, state):
            pass
        seconds = time.perf_counter() - began
        if counts:
            times = self.times.setdefault(name, Times())
            times.seconds.append(seconds)
            spent = [worker.cpu_seconds() - before for worker, before in zip(self.workers, cpu, strict=True)]
            times.busy.append([each / seconds for each in (*spent, time.process_time() - own)])
            times.acceptance, times.per_step = state.stats.acceptance, state.stats.tokens_per_step
        return state.tokens


def main() -> None:
    parser = common.parser(__doc__, 3)
    common.add_model(parser)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--layers", type=int, nargs="*", help="of each worker; by default so that they take as long")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--acceptance", type=float, nargs="*", default=[0.5, 0.7, 1.0])
    parser.add_argument("--only", nargs="*", default=[""], help="ways whose names contain one of these, and dense")
    parser.add_argument("--width", type=int, default=3, help="rows of a batch")
    given = parser.parse_args()
    with pinned_workers(given.workers) as workers:
        layers = given.layers or equal_shares(given.model, given.workers)
        layers[-1] += 1  # the LM head
        found = devices.choose([worker.endpoint for worker in workers])
        model = Model(given.model, gpu_layers=sum(layers), devices=found, tensor_split=layers)
        bench = Bench(model, workers, given.tokens)
        stages = bench.stage_times()
        told = ", ".join(f"{each:.1f}" for each in stages)
        print(f"{given.model.name}: stages end at {bench.engine.stages} of {bench.engine.n_layer} layers, {told} ms;")
        print(f"at most {sum(stages) / max(stages):.2f} times as fast as one row through all of them")
        bench.answer = bench.run("dense", Dense(), counts=False)
        ways = {
            name: make
            for name, make in bench.ways(given.acceptance, given.width).items()
            if name == "dense" or any(part in name for part in given.only)
        }
        for i in range(given.rounds + 1):  # the first one builds graphs
            for name, make in ways.items():
                tokens = bench.run(name, make(), counts=i > 0)
                if tokens != bench.answer:
                    raise SystemExit(f"{name}: another text")
        dense = bench.times["dense"]
        print("tokens/s: of the fastest round; of dense: of these, and (the median of each round's)")
        print(f"{'':26} tokens/s  of dense      workers, this    right  tokens a pass")
        for name, times in bench.times.items():
            least, best = min(times.seconds), min(dense.seconds) / min(times.seconds)
            median = np.median([a / b for a, b in zip(dense.seconds, times.seconds, strict=True)])
            busy = " ".join(f"{np.median(each):4.0%}" for each in zip(*times.busy, strict=True))
            right = "" if times.acceptance is None else f"{times.acceptance:.2f}"
            print(
                f"{name:26} {len(bench.answer) / least:8.1f}  {best:.2f} ({median:.2f})  {busy}    {right:5}"
                f" {times.per_step:.2f}"
            )
        bench.sampler.close()
        bench.engine.close()
        model.close()


if __name__ == "__main__":
    main()
