"""The clipboard of this machine, for terminals that do not support copying (OSC 52)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys

TIMEOUT = 2  # seconds


def command() -> list[str] | None:
    """The program that copies here; None when there is none, or the screen is somewhere else."""
    if "SSH_CONNECTION" in os.environ:
        return None
    candidates = [["pbcopy"]] if sys.platform == "darwin" else []
    if "WAYLAND_DISPLAY" in os.environ:
        candidates.append(["wl-copy"])
    if "DISPLAY" in os.environ:
        candidates += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
    return next((found for found in candidates if shutil.which(found[0])), None)


def copy(text: str) -> None:
    """Copies a text with that program, if there is one."""
    found = command()
    if found is not None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                found,
                input=text.encode("utf-8", "replace"),
                timeout=TIMEOUT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
