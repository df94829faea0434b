"""Runs a program in a pseudo terminal: the screen is drawn as for a user."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

TYPED = "zqj"
FIELD = "▔▔▔▔▔▔▔▔"  # above the prompt


def run(command: Sequence[str], columns: int = 100, rows: int = 30) -> tuple[int, str]:
    """Runs a command until it ends; returns its exit code and the end of what it drew. Unix only."""
    ours, process = _started(command, columns, rows, {})
    last: deque[bytes] = deque(maxlen=16)
    reader = threading.Thread(target=_read, args=(ours, last), daemon=True)
    reader.start()
    code = process.wait()
    reader.join(1)
    return code, b"".join(last).decode(errors="replace")


def time_to_type(command: Sequence[str], variables: Mapping[str, str]) -> float:
    """Seconds from a program's start until letters are drawn that are typed once there is a prompt. Unix only."""
    begun = time.perf_counter()
    terminal, process = _started(command, 100, 30, variables)
    drawn, typed = "", -1
    try:
        while typed < 0 or not all(letter in drawn[typed:] for letter in TYPED):
            drawn += os.read(terminal, 1 << 16).decode(errors="replace")
            if typed < 0 and FIELD in drawn:
                typed = len(drawn)
                os.write(terminal, TYPED.encode())
        return time.perf_counter() - begun
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def _started(
    command: Sequence[str], columns: int, rows: int, variables: Mapping[str, str]
) -> tuple[int, subprocess.Popen[bytes]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **variables}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    return ours, process


def _read(terminal: int, last: deque[bytes]) -> None:
    try:
        while part := os.read(terminal, 1 << 16):
            last.append(part)
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(terminal)
