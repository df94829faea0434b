"""Ctrl+Z, as shells know it."""

from __future__ import annotations

import os
import signal
import sys


def available() -> bool:
    """Whether a shell waits that can let the program go on: shells put a job into a process group of its own."""
    return sys.platform != "win32" and os.getpgrp() != os.getsid(0)


def suspend() -> None:
    """Stops all processes of the job, as the terminal does; Textual leaves the screen, and comes back to it."""
    os.killpg(os.getpgrp(), signal.SIGTSTP)
