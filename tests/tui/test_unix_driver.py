"""The screen in a pseudo-terminal whose driver fails."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specee.app.tui.draft import take

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")

PROGRAM = """
import os, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fake_session import FakeSession
from specee.app.errors import AppError
from specee.app.options import ChatOptions
from specee.app.tui import app, run, unix_driver
from textual.drivers import _writer_thread

read, begin = unix_driver.UnixDriver._read, app.ChatApp.on_mount
def fails(*_):
    raise ZeroDivisionError("seven")
def broken_read(self):
    data = read(self)
    if data == b"!":
        fails()
    if data == b"?":
        threading.Thread(target=fails).start()
    if data == b";":
        self.write(b"no text")
    return data
unix_driver.UnixDriver._read = broken_read
FakeSession.logs = Path(sys.argv[2])
try:
    session = FakeSession()
    session.store.is_kept = sys.argv[3] == "kept"
    code = run.run_tui(session, ChatOptions(), {}, None)
except AppError as error:
    print("LINE " + error.line, flush=True)
    code = error.exit_code
sys.exit(code)
"""


class Screen:
    def __init__(self, logs: Path, history: str = "none") -> None:
        import pty
        import termios

        self.terminal, inside = pty.openpty()
        termios.tcsetwinsize(self.terminal, (24, 200))
        self.modes = termios.tcgetattr(self.terminal)
        command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(logs), history]
        env = {**os.environ, "TERM": "xterm-256color", "SPECEE_DATA_DIR": str(logs)}
        self.process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True, env=env
        )
        os.close(inside)
        self.shown = b""

    def until(self, *texts: bytes, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not all(text in self.shown for text in texts):
            assert time.monotonic() < end, self.shown[-2000:]
            if select.select([self.terminal], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.terminal, 1 << 16)
                except OSError:  # all have left it
                    assert all(text in self.shown for text in texts), self.shown[-2000:]

    def type(self, text: bytes) -> None:
        os.write(self.terminal, text)

    def is_restored(self) -> bool:
        import termios

        return termios.tcgetattr(self.terminal)[3] == self.modes[3]

    def hang_up(self) -> None:
        os.close(self.terminal)
        self.terminal = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.terminal >= 0:
            self.hang_up()


@pytest.mark.parametrize("key", [b"!", b";"])
def test_a_thread_of_the_terminal_that_fails_ends_it_with_a_line(key: bytes, tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    try:
        screen.until(b"Ask something")
        screen.type(b"my draft")
        screen.until(b"my draft")
        screen.type(key)
        screen.until(b"LINE internal error: ", b"what you had written is in", b"\x1b[?1049l")
        assert screen.process.wait(60) == 1
        assert b"Traceback" not in screen.shown and screen.is_restored()
        assert "Traceback" in (tmp_path / "errors.log").read_text()
        assert (tmp_path / "draft.txt").read_text().startswith("my draft")
    finally:
        screen.close()


def test_another_thread_that_fails_is_told_on_the_screen(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    try:
        screen.until(b"Ask something")
        screen.type(b"?")
        screen.until(b"ZeroDivisionError")
        screen.type(b"\x11")
        screen.until(b"\x1b[?1049l")
        assert screen.process.wait(60) == 0 and b"Traceback" not in screen.shown
    finally:
        screen.close()


def test_a_terminal_that_is_gone_ends_it(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    try:
        screen.until(b"Ask something")
        screen.type(b"my draft")
        screen.until(b"my draft")
        screen.hang_up()
        assert screen.process.wait(60) not in (0, None)
        assert (tmp_path / "draft.txt").read_text() == "my draft"
    finally:
        screen.close()


@pytest.mark.parametrize(
    ("way", "code"), [(b"\x03", 0), (b"\x11", 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_what_was_not_sent_stands_in_the_prompt_at_the_next_start(
    way: bytes | signal.Signals, code: int, tmp_path: Path
) -> None:
    screen = Screen(tmp_path, "kept")
    try:
        screen.until(b"Ask something")
        screen.type(b"first\nsecond draft")
        screen.until(b"second draft")
        if isinstance(way, bytes):
            screen.type(way)
        else:
            screen.process.send_signal(way)
        screen.until(b"\x1b[?1049l", b"at the next start")
        assert screen.process.wait(60) == code and screen.is_restored()
    finally:
        screen.close()
    screen = Screen(tmp_path, "kept")
    try:
        screen.until(b"second draft")
        assert not list(tmp_path.glob("unsent*"))
    finally:
        screen.close()


def test_what_was_typed_is_there_after_the_program_was_killed(tmp_path: Path) -> None:
    """But not while it runs: it is in its own prompt then."""
    killed, other = Screen(tmp_path, "kept"), None
    try:
        killed.until(b"Ask something")
        killed.type(b"half a question")
        end = time.monotonic() + 60
        while not any("half a question" in file.read_text() for file in tmp_path.glob("typed-*.txt")):
            assert time.monotonic() < end
            killed.until(b"half")
            time.sleep(0.05)
        assert take(tmp_path) == ""
        killed.process.kill()
        killed.process.wait()
        other = Screen(tmp_path, "kept")
        other.until(b"half a question", b"was not sent")
        assert not any("half" in file.read_text() for file in tmp_path.glob("unsent*"))
        other.type(b"\x03")
        other.until(b"at the next start")
        assert other.process.wait(60) == 0
        assert not list(tmp_path.glob("typed-*")) and take(tmp_path) == "half a question"
    finally:
        for each in filter(None, (killed, other)):
            each.close()
