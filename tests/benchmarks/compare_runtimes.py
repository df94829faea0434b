"""Ours, stock and ik_llama.cpp, for each instruction set: `python tests/benchmarks/compare_runtimes.py MODEL.gguf`.

Each runs in a process of its own, and they take turns: one works while the others sleep. One table: tokens a second of
decoding, t(n)/t(1) (n rows at once, in times of one), prompts, and the same behind a long text. Medians of the rounds,
least and most; "x stock" is stock's time for the same work over the runtime's, within a round.

    compare_runtimes.py MODEL.gguf --library avx2=DIR --stock PYTHON --stock avx2=DIR --ik DIR

Without --library a set's kernels are those of the library in use (SPECEE_KERNELS), whose ggml stays as it was compiled.
AVX-VNNI on a CPU that has AVX512-VNNI instead: the stand-in of tests/native/vnni_stand_in.py, compiled for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from common import N_PREFILL, N_PROMPT, add_model, parser
from runtime_table import Case, Results, markdown, table

from specee.models import gguf_header
from specee.models.errors import ModelError
from specee.native import cpu

HERE = Path(__file__).parent
SETS = {  # of our kernels -> the CPU's name; a build for the machine itself has the first one that it offers
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx2": "avx2",
    "neon_i8mm": "i8mm",
    "neon_dotprod": "asimddp",
}
BATCHES, LONG_BATCHES = (1, 2, 3, 4, 6, 8), (1, 4, 8)
N_GENERATED = 32  # tokens that ik_llama.cpp's llama-bench decodes for one measurement


def cases(long: int) -> tuple[list[Case], list[Case]]:
    """The short ones, and those behind a long text, which is the first of these."""
    short = [*(Case(N_PROMPT, n) for n in BATCHES), Case(0, N_PREFILL)]
    return short, [Case(0, long), *(Case(long, n) for n in LONG_BATCHES)] if long else []


# ---- what is measured ----------------------------------------------------------------------------------------------


class Contender(Protocol):
    def measure(self, wanted: Sequence[Case], times: int) -> dict[Case, float]:
        """Median seconds of each case that it can do."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What all of them get."""

    model: Path
    n_threads: int
    n_ctx: int
    flash: bool  # stock and ik_llama.cpp with flash attention


class Worker:
    """runtime_worker.py in another process."""

    def __init__(self, kind: str, job: Job, python: str = sys.executable, environment: dict[str, str] | None = None):
        arguments = (kind, job.model, job.n_threads, job.n_ctx, int(job.flash))
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 - thousands of lines, of which the last may tell why
        self._process = subprocess.Popen(
            [python, str(HERE / "runtime_worker.py"), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages, text=True, env=environment,
        )  # fmt: skip
        self.layouts: str = json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line
        self._messages.seek(0)
        message = self._messages.read()[-500:]
        self.close()
        sys.exit(f"a runtime ended: {self._process.args}\n{message}")

    def measure(self, wanted: Sequence[Case], times: int) -> dict[Case, float]:
        assert self._process.stdin is not None
        found = {}
        for at, n in wanted:
            self._process.stdin.write(json.dumps([at, n, repetitions(n, times)]) + "\n")
            self._process.stdin.flush()
            found[Case(at, n)] = statistics.median(json.loads(self._line()))
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._messages.close()


class IkLlama:
    """Its llama-bench, started for each turn. n rows it has only as a prompt of n, with logits for the last."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._program, self._job = folder / "llama-bench", job

    def measure(self, wanted: Sequence[Case], times: int) -> dict[Case, float]:
        prompts = {case.n: case for case in wanted if not case.at or (case.n > 1 and case.at == N_PROMPT)}
        decodes = {case.at: case for case in wanted if case.at and case.n == 1}
        job, most = self._job, max(case.n for case in wanted)
        command = [self._program, "-m", job.model, "-t", job.n_threads, "-fa", int(job.flash), "-rtr", 1, "-n", 0]
        command += ["-r", repetitions(most, times), "-o", "json", "-p", ",".join(map(str, prompts)) or 0]
        for at in decodes:
            command += ["-gp", f"{at},{N_GENERATED}"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"ik_llama.cpp: {done.stderr[-500:]}")
        found = {}
        for test in json.loads(done.stdout):
            seconds, n_generated = statistics.median(test["samples_ns"]) / 1e9, test["n_gen"]
            case = (decodes if n_generated else prompts)[test["n_prompt"]]
            found[case] = seconds / (n_generated or 1)
        return found

    def close(self) -> None:
        """Nothing runs between its turns."""


def repetitions(n: int, times: int) -> int:
    """Of n rows in one turn: a long prompt takes long enough for one."""
    return times if n <= max(BATCHES) else max(1, times // 3) if n <= N_PREFILL else 1


# ---- which there are -----------------------------------------------------------------------------------------------


def sets_here(features: Iterable[str]) -> list[str]:
    """Instruction sets of our kernels that can be measured on a CPU with these extensions, the best one first."""
    known = {*features}
    if "avx512_vnni" in known:
        known.add("avx_vnni")  # a stand-in
    return [name for name, feature in SETS.items() if feature in known]


def placed(given: Iterable[str], best: str, inside: str = "") -> dict[str, Path]:
    """Of each `SET=PLACE` the place by set; a place alone belongs to the best set. A folder must hold `inside`."""
    found = {}
    for text in given:
        name, _, place = text.partition("=")
        name, place = (name, place) if name in SETS else (best, text)
        if not (path := Path(place)).exists():
            sys.exit(f"{text}: there is no {place}; SET=PLACE takes {', '.join(SETS)}")
        if inside and path.is_dir() and not any(path.glob(inside)):
            sys.exit(f"{text}: there is no {inside.replace('*', '')} in {place}")
        found[name] = path.absolute()  # links stay: an interpreter finds its environment by its path
    return found


def stand_in(environment: dict[str, str], folder: str) -> dict[str, str]:
    """AVX-VNNI's kernels for this CPU, linked against the library of `environment`."""
    out = str(Path(folder, "avx_vnni.so"))
    subprocess.run([sys.executable, str(HERE.parent / "native/vnni_stand_in.py"), out], env=environment, check=True)
    return environment | {"LD_PRELOAD": out}


def start_ours(name: str, library: Path | None, job: Job, folder: str) -> Worker:
    environment = os.environ | {"SPECEE_KERNELS": name} | ({"SPECEE_LIB_DIR": str(library)} if library else {})
    if name == "avx_vnni" and name not in (cpu.features() or ()):
        environment = stand_in(environment, folder)
    return Worker("ours", job, environment=environment)


def start_stock(place: Path, job: Job) -> Worker:
    """An interpreter with an unpatched llama-cpp-python, or a folder of libraries for the bindings of this one."""
    ours = ("PYTHONPATH", "LLAMA_CPP_LIB_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    if place.is_dir():
        return Worker("stock", job, environment=environment | {"LLAMA_CPP_LIB_PATH": str(place)})
    return Worker("stock", job, str(place), environment)


def take_turns(contenders: dict[tuple[str, str], Contender], wanted: list[Case], rounds: int, times: int) -> Results:
    """All cases of each in turn; every second round in the other order, so that a slower machine harms all alike."""
    results: Results = {}
    order = list(contenders)
    for _ in range(rounds if wanted else 0):
        for name, kind in order:
            seconds = results.setdefault(name, {}).setdefault(kind, {})
            for case, took in contenders[name, kind].measure(wanted, times).items():
                seconds.setdefault(case, []).append(took)
        order.reverse()
    return results


# ---- the command line -----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    options_ = parser(__doc__, rounds=5)
    add_model(options_)
    place = {"action": "append", "default": []}
    options_.add_argument("--sets", nargs="+", choices=SETS, metavar="SET", help="by default all that this CPU has")
    options_.add_argument("--library", metavar="SET=DIR", help="our library built for a set", **place)
    options_.add_argument(
        "--stock", metavar="[SET=]PLACE", **place,
        help="an interpreter with the unpatched llama-cpp-python, or a folder with its libraries built for a set",
    )  # fmt: skip
    options_.add_argument("--ik", metavar="[SET=]DIR", help="a folder with ik_llama.cpp's llama-bench", **place)
    options_.add_argument("--flash", action="store_true", help="stock and ik_llama.cpp with flash attention")
    options_.add_argument("--times", type=int, default=9, help="passes of each size in a turn")
    options_.add_argument("--long", type=int, default=4096, metavar="TOKENS", help="0: no long text")
    options_.add_argument("--long-rounds", type=int, default=3)
    options_.add_argument("--json", type=Path, help="where the seconds of every round go")
    options = options_.parse_args(arguments)
    sets = options.sets or sets_here(cpu.features() or ()) or sys.exit("no kernels of ours for this CPU; give --sets")
    try:
        gguf_header.read_model(options.model)
    except ModelError as error:
        sys.exit(str(error))
    library, stock = (placed(given, sets[0], "*llama.*") for given in (options.library, options.stock))
    ik = placed(options.ik, sets[0], "llama-bench*")
    threads = options.threads or cpu.usable_cores()
    job = Job(options.model, threads, max(options.long, N_PREFILL) + N_PROMPT, options.flash)
    run(job, sets, library, stock, ik, options)


def run(
    job: Job, sets: list[str], library: dict[str, Path], stock: dict[str, Path], ik: dict[str, Path],
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """Starts them, measures, prints."""
    contenders: dict[tuple[str, str], Contender] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name in sets:
            ours = contenders[name, "ours"] = start_ours(name, library.get(name), job, folder)
            stack.enter_context(closing(ours))
            if name in stock:
                contenders[name, "stock"] = stack.enter_context(closing(start_stock(stock[name], job)))
            if name in ik:
                contenders[name, "ik"] = IkLlama(ik[name], job)
            print(f"{name}: ours {library.get(name, 'as in use')} ({ours.layouts}), stock {stock.get(name)}")
        short, long = cases(options.long)
        results = take_turns(contenders, short, options.rounds, options.times)
        for name, of_set in take_turns(contenders, long, options.long_rounds, options.times).items():
            for kind, seconds in of_set.items():
                results[name][kind].update(seconds)
    if options.json:
        kept = {name: {kind: [[*case, took] for case, took in seconds.items()] for kind, seconds in of_set.items()}
                for name, of_set in results.items()}  # fmt: skip
        options.json.write_text(json.dumps({**asdict(job), "model": job.model.name, "seconds": kept}))
    print(f"\n{job.model.name}, {job.n_threads} thread(s); medians of {options.rounds} rounds (least-most)\n")
    print(markdown(table(results)))


if __name__ == "__main__":
    main()
