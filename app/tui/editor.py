"""A text in the user's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path


def command() -> list[str]:
    """The user's editor."""
    return shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")


def edit(text: str) -> str:
    """Opens an editor on a text; returns the text as it was saved. Raises OSError when there is no editor."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompt.md"
        file.write_text(text, "utf-8")
        subprocess.run([*command(), str(file)], check=False)
        return file.read_text("utf-8").rstrip("\n")
