"""Says at the terminal how far the build is: pip shows nothing of it, and a first build takes minutes.

pip collects what a build prints, and turns a spinner meanwhile. `progress` writes one line above that spinner's, past
pip, and keeps it up to date from what the build prints. It writes nothing, and the build's output goes its usual way,
unless the terminal is the standard output of a pip in the foreground that was not asked to say more or less.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NOTE = "specee-chat: "  # a line that begins so is for the user
_STEP = re.compile(r"\[(\d+)/(\d+)\] ")  # Ninja's
_OTHER_VERBOSITY = re.compile(r"\s(-[A-Za-z]*[vq][A-Za-z]*|--verbose|--quiet)(\s|$)")


class Line:
    """One line of a terminal, above the line on which the cursor is and stays."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._shown = False

    def show(self, text: str) -> None:
        # Down and up again: at the bottom of the screen this makes room, and the cursor keeps its column.
        insert = "\x1bD\x1b[A\x1b7\r\x1b[L"
        rewrite = "\x1b7\x1b[A\r\x1b[2K"
        n_columns = os.get_terminal_size(self._terminal).columns or 80  # 0: unknown
        clipped = f"\x1b[?7l  {text[: n_columns - 2]}\x1b[?7h\x1b8"
        whole = rewrite + clipped if self._shown else insert + clipped + "\x1b[B"
        os.write(self._terminal, whole.encode())  # in one piece: pip's spinner writes too
        self._shown = True


class Narrator:
    """Turns the build's output into the text of the line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._rest = ""
        self._begun = 0.0  # when the first file was compiled
        self._drawn = 0.0
        self._n_files = 0

    def read(self, output: str) -> None:
        *lines, self._rest = (self._rest + output).split("\n")
        for line in lines:
            if line.startswith(NOTE):
                self._line.show(line)
            elif step := _STEP.match(line):
                self._step(int(step[1]), int(step[2]))

    def _step(self, n_done: int, n_files: int) -> None:
        now = time.monotonic()
        if not self._begun:
            self._begun = now
        elif now < self._drawn + 1 and n_done < n_files:
            return
        self._drawn, self._n_files = now, n_files
        left = _remaining(n_done, n_files, now - self._begun)
        self._line.show(f"{NOTE}building llama.cpp, {n_done} of {n_files} files, {left}")

    def end(self) -> None:
        if self._n_files:
            minutes, seconds = divmod(round(time.monotonic() - self._begun), 60)
            with suppress(OSError):
                self._line.show(f"{NOTE}built llama.cpp in {minutes} min {seconds} s")


def _remaining(n_done: int, n_files: int, elapsed: float) -> str:
    if elapsed < 30 or n_done < n_files / 5:  # the first files are quick ones
        return "usually 2 to 5 minutes"
    minutes = round(elapsed / n_done * (n_files - n_done) / 60)
    return "about a minute left" if minutes == 1 else f"about {minutes} minutes left" if minutes else "soon done"


def _of_parent() -> tuple[str, str]:
    """Command line and standard output of the process that waits for us, which is pip."""
    parent = Path("/proc") / str(os.getppid())
    if parent.exists():
        return (parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"), str(parent / "fd/1")
    command = ["ps", "-o", "args=", "-p", str(os.getppid())]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout, "/dev/tty"


def _open() -> int | None:
    """The terminal, opened for writing; None where nothing should be shown."""
    if os.name != "posix" or not os.environ.get("PIP_BUILD_TRACKER") or os.environ.get("TERM", "dumb") == "dumb":
        return None
    try:
        command, output = _of_parent()
        if _OTHER_VERBOSITY.search(command):
            return None
        terminal = os.open(output, os.O_WRONLY | os.O_NOCTTY)
    except (OSError, subprocess.SubprocessError):
        return None
    try:
        if os.isatty(terminal) and os.tcgetpgrp(terminal) == os.getpgrp():
            return terminal
    except OSError:  # not our terminal
        pass
    os.close(terminal)
    return None


def _pass_on(source: int, target: int, narrator: Narrator) -> None:
    """Copies the build's output to where it would have gone, until its end."""
    shown = True
    try:
        while output := os.read(source, 1 << 16):
            os.write(target, output)
            if shown:
                try:
                    narrator.read(output.decode(errors="replace"))
                except OSError:  # the terminal went away; the build goes on
                    shown = False
    finally:
        os.close(source)


@contextmanager
def progress() -> Iterator[None]:
    """What is printed inside, by programs too, is read on its way for the line at the terminal."""
    terminal = _open()
    if terminal is None:
        yield
        return
    narrator = Narrator(Line(terminal))
    sys.stdout.flush()
    usual = os.dup(1)
    source, target = os.pipe()
    os.dup2(target, 1)
    os.close(target)
    reader = threading.Thread(target=_pass_on, args=(source, usual, narrator), daemon=True)
    reader.start()
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        sys.stdout.flush()
        os.dup2(usual, 1)  # the pipe's end for writing was only there
        reader.join(timeout=5)  # a program that was started inside and stays may keep it open: then its output goes on
        if not reader.is_alive():
            os.close(usual)
        if succeeded:
            narrator.end()
