"""The first moments of the program: Ctrl+C while it loads, too little memory, and errors that nobody foresaw."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = "from specee.app.cli.main import main; main()"
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and limits of Unix")
INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@posix_only
@pytest.mark.parametrize("module", ["specee.app.cli.program", "click", "pydantic", "pydantic_core", "specee.app.paths"])
def test_ctrl_c_while_it_loads(module: str) -> None:
    code = INTERRUPT.format(module=module) + PROGRAM
    done = subprocess.run([sys.executable, "-c", code, "history", "list"], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@posix_only
@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.5])
def test_ctrl_c_at_any_moment(tmp_path: Path, seconds: float) -> None:
    line = [sys.executable, "-c", f"print('here', flush=True); {PROGRAM}", "--data-dir", str(tmp_path), "-p", "Hi"]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None and program.stderr is not None
        program.stdout.readline()
        time.sleep(seconds)
        program.send_signal(signal.SIGINT)
        errors = program.stderr.read()
    assert b"Traceback" not in errors and program.returncode in (130, 0, 1, 3)


@posix_only
def test_who_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    code = (
        f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{INTERRUPT.format(module='pydantic')}{PROGRAM}"
    )
    done = subprocess.run([sys.executable, "-c", code, "paths"], capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stderr == b""


@pytest.mark.parametrize(
    "error",
    ["MemoryError", "ImportError('libx.so: failed to map segment from shared object')"],
    ids=["plain", "library"],
)
def test_too_little_memory_to_load(error: str) -> None:
    code = f"""
import sys

class Full:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic":
            raise {error}

sys.meta_path.insert(0, Full())
{PROGRAM}
"""
    done = subprocess.run([sys.executable, "-c", code, "paths"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("specee-chat: not enough memory: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v")
@pytest.mark.parametrize("kilobytes", [20_000, 30_000, 40_000, 50_000, 300_000])
def test_a_limit_of_memory_is_one_line(tmp_path: Path, kilobytes: int) -> None:
    line = f"ulimit -v {kilobytes}; exec {sys.executable} -c '{PROGRAM}' --data-dir {tmp_path} history list"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or (done.returncode == 1 and "memory: " in done.stderr)


def test_an_error_that_nobody_foresaw_is_in_the_log(tmp_path: Path) -> None:
    code = f"from specee.app.chat.history.store import Store; Store.chats = lambda *_: 1 / 0; {PROGRAM}"
    log = tmp_path / "there" / "logs" / "errors.log"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "SPECEE_DATA_DIR": str(tmp_path / "there")},
            capture_output=True,
            text=True,
            timeout=60,
        )

    for arguments in (["--data-dir", str(tmp_path / "there"), "history", "list"], ["history"]):
        done = run(*arguments)
        told = f"specee-chat: internal error: ZeroDivisionError: division by zero; {log} has the details\n"
        assert (done.returncode, done.stderr) == (1, told)
    assert log.read_text().count("Traceback") == 2
    log.unlink()
    log.mkdir()
    assert run("history").stderr == "specee-chat: internal error: ZeroDivisionError: division by zero\n"
