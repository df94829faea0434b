"""A text in the user's own editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path


def command() -> list[str]:
    """What the user edits with."""
    return shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")


def edit(text: str) -> str:
    """The text as it was left in the editor, which has the terminal meanwhile. Raises OSError when there is none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompt.md"
        file.write_text(text, "utf-8")
        subprocess.run([*command(), str(file)], check=False)
        return file.read_text("utf-8").rstrip("\n")
