"""What a build says at the terminal past pip: the right words, only there, and none of its output is lost."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

CMAKE = Path(__file__).parents[2] / "native/cmake"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terminal", CMAKE / "terminal.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


terminal = _load()

BUILD = """
import os, subprocess, sys
import terminal
with terminal.progress():
    print("configuring", flush=True)
    subprocess.run(["echo", "specee-chat: downloading it"])
    subprocess.run(["printf", "[1/2] one\\n[2/2] two\\n"])
    if "fail" in os.environ: sys.exit("no compiler")
print("after")
"""
# As pip: the terminal is its own, and what the build prints comes through a pipe.
PIP = f"""
import fcntl, os, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
print("spinner", end="", flush=True)
done = subprocess.run(
    [sys.executable, "-c", {BUILD!r}],
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=os.setpgrp if "background" in os.environ else None,
)
open(os.environ["COLLECTED"], "wb").write(done.stdout)
sys.exit(done.returncode)
"""


def _install(tmp_path: Path, *options: str, **env: str) -> tuple[str, str, int]:
    """What is on the terminal, what pip collected, and the exit status."""
    import pty

    master, slave = pty.openpty()
    collected = tmp_path / "collected"
    whole = {"TERM": "xterm", "PIP_BUILD_TRACKER": "somewhere", **env}
    process = subprocess.Popen(
        [sys.executable, "-c", PIP, *options],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(CMAKE), "COLLECTED": str(collected), **whole},
    )
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 4096):
            shown += data
    except OSError:  # Linux: nobody has the other end any more
        pass
    os.close(master)
    status = process.wait()
    return shown.decode(), collected.read_text(), status


def test_progress_is_shown_and_the_output_kept(tmp_path: Path) -> None:
    shown, collected, status = _install(tmp_path)
    assert status == 0
    assert collected == "configuring\nspecee-chat: downloading it\n[1/2] one\n[2/2] two\nafter\n"
    for text in ("specee-chat: downloading it", "building llama.cpp, 2 of 2 files", "built llama.cpp"):
        assert text in shown
    assert "\n" not in shown  # the line of the spinner stays where it is


def test_a_failed_build_is_not_said_to_be_built(tmp_path: Path) -> None:
    shown, collected, status = _install(tmp_path, fail="1")
    assert status == 1 and "built" not in shown
    assert collected.endswith("[2/2] two\nno compiler\n")


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["-vr"], {}),
        (["-qq"], {}),
        (["--quiet"], {}),
        ([], {"TERM": "dumb"}),
        ([], {"PIP_BUILD_TRACKER": ""}),
        ([], {"background": "1"}),
    ],
)
def test_nothing_is_shown(options: list[str], env: dict[str, str], tmp_path: Path) -> None:
    shown, collected, status = _install(tmp_path, *options, **env)
    assert (shown, status) == ("spinner", 0)
    assert collected.endswith("[2/2] two\nafter\n")


def test_without_a_terminal(tmp_path: Path) -> None:
    """As in CI, where pip's own output goes into a file."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        env={**os.environ, "PYTHONPATH": str(CMAKE), "TERM": "xterm", "PIP_BUILD_TRACKER": "somewhere"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "configuring\nspecee-chat: downloading it\n[1/2] one\n[2/2] two\nafter\n" and not done.stderr


class Recorder:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def show(self, text: str) -> None:
        self.texts.append(text.removeprefix("specee-chat: "))


def test_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    line = Recorder()
    narrator = terminal.Narrator(line)
    narrator.read("-- The C compiler\n[1/9")  # a line may come in pieces
    narrator.read("3] Building\n")
    now += 60
    narrator.read("[31/93] Building\n[32/93] too soon for another\n")
    now += 100
    narrator.read("[92/93] Building\n[93/93] Linking\n")
    narrator.end()
    assert line.texts == [
        "building llama.cpp, 1 of 93 files, usually 2 to 5 minutes",
        "building llama.cpp, 31 of 93 files, about 2 minutes left",
        "building llama.cpp, 92 of 93 files, soon done",
        "building llama.cpp, 93 of 93 files, soon done",
        "built llama.cpp in 2 min 40 s",
    ]


def test_a_terminal_that_goes_away_does_not_matter() -> None:
    class Gone:
        def show(self, text: str) -> None:
            raise OSError

    source, into = os.pipe()
    out, target = os.pipe()
    reader = threading.Thread(target=terminal._pass_on, args=(source, target, terminal.Narrator(Gone())))
    reader.start()
    os.write(into, b"[1/2] one\n")
    os.write(into, b"[2/2] two\n")
    os.close(into)
    reader.join()
    assert os.read(out, 100) == b"[1/2] one\n[2/2] two\n"
    os.close(out)
    os.close(target)
