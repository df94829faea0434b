"""`specee-chat models recommend`, as a subprocess on the embedded model, without a network."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from specee.models import embedded, registry
from specee.native import library
from specee.native.errors import NativeError

PROGRAM = [sys.executable, "-c", "from specee.app.cli.main import main; main()"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recommend")


@pytest.fixture
def run(folder: Path) -> Run:
    if embedded.path() is None:
        pytest.skip("no embedded model in this build")
    try:
        library.load()
    except NativeError as error:
        pytest.skip(error.title)
    ours = {"SPECEE_DATA_DIR": str(folder / "data"), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **ours, **more}
        return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=120, env=env)

    return call


def models(run: Run, *arguments: str) -> dict[str, dict[str, Any]]:
    done = run("models", "recommend", "--json", *arguments)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return {model["name"]: model for model in json.loads(done.stdout)["models"]}


def test_everything_is_known_without_a_network(run: Run) -> None:
    done = run("models", "recommend", "--offline")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "\x1b" not in done.stdout, "no colours in a pipe"
    assert "TOKENS/S" in done.stdout and "smollm2-135m" in done.stdout
    assert done.stdout.startswith("This machine: ") and "weights are read at" in done.stdout
    first = done.stdout.splitlines()
    assert any(line.startswith("Take ") and line.endswith(".") for line in first)
    assert first[-1].startswith("  specee-chat")


def test_all_models_with_their_estimates(run: Run) -> None:
    found = models(run)
    assert set(registry.entries()) <= set(found)
    small = found["smollm2-135m"]
    assert small["here"] and small["where"] == "embedded" and small["exact"] and small["commands"] == ["specee-chat"]
    assert small["expected"] > found["llama3.1-8b"]["expected"] > 0
    assert small["expected_with_drafts"] >= small["expected"]
    assert found["qwen2.5-coder-7b"]["drafter"] in ("qwen2.5-coder-0.5b", "")


def test_for_what_it_is_wanted(run: Run) -> None:
    code = models(run, "--for", "code")
    assert "code" in next(iter(code.values()))["best_for"]
    taken = re.search(r"Take (\S+): it is ", run("models", "recommend", "--for", "code").stdout)
    assert taken is not None and taken[1] in code  # which one depends on speed and free memory
    refused = run("models", "recommend", "--for", "poems")
    assert refused.returncode == 2 and "'chat', 'code', 'small', 'reasoning'" in refused.stderr


def test_a_longer_window_takes_more_memory(run: Run) -> None:
    short, long = (models(run, "--ctx", n)["llama3.2-1b"]["memory_bytes"] for n in ("512", "32768"))
    assert long > short + 500_000_000


def test_all_that_fit_are_shown_when_asked(run: Run) -> None:
    short, whole = (run("models", "recommend", *more).stdout for more in ((), ("--all",)))
    assert "more fit: specee-chat models recommend --all" in short
    assert "--all" not in whole and len(whole.splitlines()) > len(short.splitlines())


def test_what_ran_is_shown_beside_what_was_expected(run: Run) -> None:
    asked = ("--max-tokens", "24", "--temperature", "0", "--no-history")
    assert run("-p", "Write a long story about a ship.", *asked).returncode == 0
    measured = models(run)["smollm2-135m"]["measured"]
    assert measured is not None and measured > 0
    shown = run("models", "recommend").stdout
    assert "MEASURED" in shown
    assert "tokens/s" in run("models", "show").stdout


def test_a_model_that_never_drafts_is_measured_as_well(run: Run, folder: Path) -> None:
    other = {"SPECEE_DATA_DIR": str(folder / "dense")}
    asked = ("--max-tokens", "24", "--policy", "dense", "--no-history")
    assert run("-p", "Write a long story about a ship.", *asked, **other).returncode == 0
    done = run("models", "recommend", "--json", **other)
    small = next(model for model in json.loads(done.stdout)["models"] if model["name"] == "smollm2-135m")
    assert small["measured"] is not None and small["measured"] > 0


def test_a_broken_library_costs_the_speed_only(run: Run, folder: Path) -> None:
    done = run("models", "recommend", SPECEE_LIB_DIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert "could not be measured" in done.stdout and "Take " in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_line_of_the_table_is_wider_than_the_terminal(run: Run, folder: Path, columns: int) -> None:
    env = {**os.environ, "SPECEE_DATA_DIR": str(folder / "data"), "HF_HOME": str(folder / "hf")}
    env |= {"COLUMNS": str(columns), "TERM": "xterm"}
    main, side = pty.openpty()
    try:
        arguments = [*PROGRAM, "models", "recommend"]
        process = subprocess.Popen(arguments, stdin=side, stdout=side, stderr=subprocess.DEVNULL, env=env)
        os.close(side)
        told = b""
        with suppress(OSError):  # the other end is closed
            while chunk := os.read(main, 1 << 16):
                told += chunk
        assert process.wait() == 0
    finally:
        os.close(main)
    lines = told.decode().replace("\r", "").splitlines()
    table = lines[lines.index("") + 1 :]
    table = table[: table.index("")]
    assert table[0].startswith("NAME") and len(table) > 8
    assert max(map(len, table)) <= columns
    assert "\x1b" not in told.decode()
