"""A killed program leaves the terminal as it found it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no terminals of this kind")

PROGRAM = """
import sys, time, tty
from pathlib import Path
from specee.app.engine.process import EngineProcess
from specee.app.engine.terminal_guard import SavedTerminal
terminal = SavedTerminal.capture()
assert terminal is not None
engine = EngineProcess(Path(sys.argv[1]), terminal=terminal)
if sys.argv[2] == "screen":
    tty.setraw(0)
    print("\\x1b[?1049h", end="")
print("ready", flush=True)
time.sleep(60 if sys.argv[3] == "kill" else 0)
engine.close()
"""


class Pane:
    """A program on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        import termios

        self.fd, slave = os.openpty()
        self.attributes = termios.tcgetattr(slave)
        command = [sys.executable, "-c", PROGRAM, *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        self._slave = slave  # held, so that the terminal lasts as it does below a shell
        self.shown = b""

    def read_until(self, text: bytes, seconds: float = 60) -> bool:
        end = time.monotonic() + seconds
        while text not in self.shown and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                self.shown += os.read(self.fd, 4096)
        return text in self.shown

    def modes(self) -> object:
        import termios

        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self._slave)


def test_a_killed_screen_is_left(tmp_path: Path) -> None:
    pane = Pane(str(tmp_path), "screen", "kill")
    assert pane.read_until(b"ready"), pane.shown
    assert pane.modes() != pane.attributes
    pane.process.send_signal(signal.SIGKILL)
    assert pane.read_until(b"the chat is kept"), pane.shown
    assert b"\x1b[?1049l" in pane.shown and b"\x1b[?25h" in pane.shown
    assert pane.modes() == pane.attributes
    pane.close()


def test_modes_that_are_not_the_screens_stay(tmp_path: Path) -> None:
    import termios

    pane = Pane(str(tmp_path), "plain", "kill")
    assert pane.read_until(b"ready"), pane.shown
    shell = termios.tcgetattr(pane._slave)
    shell[3] &= ~termios.ECHO  # as a shell's line editor does
    termios.tcsetattr(pane._slave, termios.TCSANOW, shell)
    pane.process.send_signal(signal.SIGKILL)
    assert pane.read_until(b"the chat is kept"), pane.shown
    assert pane.modes() == shell
    pane.close()


def test_a_program_that_ends_well_needs_no_help(tmp_path: Path) -> None:
    pane = Pane(str(tmp_path), "plain", "end")
    assert pane.process.wait(60) == 0
    assert not pane.read_until(b"1049l", 1.0), pane.shown
    pane.close()
