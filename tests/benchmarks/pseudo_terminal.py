"""Runs a program in a pseudo terminal: the screen is drawn as for a user."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections import deque
from collections.abc import Sequence


def run(command: Sequence[str], columns: int = 100, rows: int = 30) -> tuple[int, str]:
    """Runs a command until it ends; returns its exit code and the end of what it drew. Unix only."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    last: deque[bytes] = deque(maxlen=16)
    reader = threading.Thread(target=_read, args=(ours, last), daemon=True)
    reader.start()
    code = process.wait()
    reader.join(1)
    return code, b"".join(last).decode(errors="replace")


def _read(terminal: int, last: deque[bytes]) -> None:
    try:
        while part := os.read(terminal, 1 << 16):
            last.append(part)
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(terminal)
