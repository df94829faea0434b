"""The unpatched library in a process of its own: a stand-in speaks for it, and its program decodes with our library."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from real_engine import missing_model

from specee.app.bench import stock_program
from specee.app.bench.stock import PROGRAM, Stock
from specee.app.errors import FAILURE, USAGE, AppError
from specee.app.options import PLAIN_GREEDY, LoadOptions, PolicyChoice, Sampling

NO_MODEL = missing_model()
FOUND = {"version": "1.2.3", "patched": False}
JOB = {"model": "m.gguf", "n_ctx": 512, "n_batch": 256, "threads": 2, "gpu_layers": 0, "kv_type": "f16"}
Interpreter = Callable[..., str]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with #!")


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    """A program in place of the other Python: it says each line, and writes down what it is asked before the next."""

    def make(*lines: str, end: str = "") -> str:
        path = tmp_path / "python"
        path.write_text(
            f"#!{sys.executable}\n"
            "import os, signal, sys\n"
            f"for line in {lines!r}:\n"
            "    print(line, flush=True)\n"
            f"    with open({str(tmp_path / 'asked')!r}, 'a') as file:\n"
            "        file.write(sys.stdin.readline())\n"
            f"{end}\n"
        )
        path.chmod(0o755)
        return str(path)

    return make


def refusal(python: str) -> AppError:
    with pytest.raises(AppError) as caught:
        Stock(python, "1.2.3")
    return caught.value


def test_it_is_told_the_model_and_the_tokens(interpreter: Interpreter, tmp_path: Path) -> None:
    answer = {"tokens": [5, 6], "times": [0.0, 0.25]}
    stock = Stock(interpreter(json.dumps(FOUND), "{}", json.dumps(answer)), "1.2.3")
    stock.load(**JOB, sampling=PLAIN_GREEDY)
    found = stock.answer([1, 2], 8)
    stock.close()
    assert found.tokens == [5, 6] and found.rate() == 4.0
    job, asked = map(json.loads, (tmp_path / "asked").read_text().splitlines())
    assert job == {**JOB, **json.loads(json.dumps(asdict(PLAIN_GREEDY)))} and asked == {
        "prompt": [1, 2],
        "max_tokens": 8,
    }


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"version": "1.2.4", "patched": False}, "llama-cpp-python 1.2.4, not 1.2.3"),
        ({"version": "1.2.3", "patched": True}, "our own"),
        ({"version": "1.2.3+specee", "patched": True}, "our own"),
        ({"error": "not installed"}, "pip install llama-cpp-python==1.2.3"),
        ("hello", "no Python interpreter"),
        ("7", "no Python interpreter"),
    ],
)
def test_what_cannot_be_compared_is_refused(interpreter: Interpreter, says: Any, why: str) -> None:
    error = refusal(interpreter(says if isinstance(says, str) else json.dumps(says)))
    assert why in error.line and error.exit_code == USAGE


def test_no_such_file_and_no_program(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        error = refusal(str(path))
        assert str(path) in error.line and error.exit_code == USAGE


def test_a_python_without_the_library_says_so(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    assert "not installed" in refusal(str(tmp_path / "bare/bin/python")).line


def test_errors_while_it_works_are_failures(interpreter: Interpreter) -> None:
    stock = Stock(interpreter(json.dumps(FOUND), json.dumps({"error": "it cannot load the model"})), "1.2.3")
    with pytest.raises(AppError, match="cannot load the model") as caught:
        stock.load(**JOB, sampling=PLAIN_GREEDY)
    stock.close()
    assert caught.value.exit_code == FAILURE
    stock = Stock(interpreter(json.dumps(FOUND), end="os.kill(os.getpid(), signal.SIGILL)"), "1.2.3")
    with pytest.raises(AppError, match="SIGILL") as caught:
        stock.load(**JOB, sampling=PLAIN_GREEDY)
    stock.close()
    assert caught.value.exit_code == FAILURE


def test_the_program_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Also in the middle of an answer."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp/__init__.py").write_text(
        "import time, types\n__version__ = '1.2.3'\nllama_cpp = types.ModuleType('llama_cpp')\n"
        "def llama_backend_init(): time.sleep(600)\n"
    )
    (tmp_path / "llama_cpp_python-1.2.3.dist-info").mkdir()
    (tmp_path / "llama_cpp_python-1.2.3.dist-info/METADATA").write_text("Name: llama-cpp-python\nVersion: 1.2.3\n")
    start = f"import runpy, sys; sys.path[:1] = ['', {str(tmp_path)!r}]; runpy.run_path({str(PROGRAM)!r}, "
    program = subprocess.Popen(
        [sys.executable, "-c", f"{start}run_name='__main__')"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdin is not None and program.stdout is not None
    assert json.loads(program.stdout.readline()) == FOUND
    program.stdin.write(json.dumps(JOB).encode() + b"\n")
    program.stdin.flush()
    time.sleep(0.2)
    program.stdin.close()
    assert program.wait(20) == 0
    program.stdout.close()


@pytest.mark.skipif(NO_MODEL is not None, reason=f"no real engine: {NO_MODEL}")
def test_the_program_decodes_as_dense_does(tmp_path: Path) -> None:
    """With our library in its place: the same prompts, batches and samplers give the same tokens."""
    from specee.app.bench.prompts import DEFAULT, Asked
    from specee.app.bench.rounds import compare
    from specee.app.engine.loading import open_backend

    backend = open_backend(LoadOptions(n_ctx=512, threads=2, data_dir=str(tmp_path)), lambda what, share: None)
    assert stock_program.find_library()[1]["patched"]
    import llama_cpp as llama  # which the backend has pointed at our library

    for sampling in (PLAIN_GREEDY, Sampling(temperature=0.0, repeat_penalty=1.2), Sampling(temperature=0.8, seed=1)):
        job = {**JOB, "model": backend.info.path, "n_batch": backend.engine.n_batch, **asdict(sampling)}
        stock = stock_program.Stock(llama, {**job, "seed": sampling.seed or 0})
        prompts: list[Any] = []
        theirs: list[Any] = []

        def ask(prompt: Any, n: int, stock: Any = stock, prompts: Any = prompts, theirs: Any = theirs) -> Any:
            from specee.app.bench.answer import Answer

            prompts.append(prompt)
            theirs.append(Answer(**stock.answer(prompt, n)))
            return theirs[-1]

        def fresh() -> dict[str, Any]:
            return {"dense": backend.policy(PolicyChoice("dense"))}

        rounds = list(compare(backend, fresh, DEFAULT[:2], Asked(sampling, 24), lambda m: None, ask))
        for r in rounds:
            assert r.stock is not None and len(r.stock.tokens) == len(r.stock.times) == 24
            assert r.stock.times[0] == 0.0 and r.stock.times == sorted(r.stock.times)
            assert sampling.temperature > 0 or r.stock.tokens == r.answers["dense"].tokens
    backend.close()
