"""What stood in the prompt when the screen was left: in a file, until the next start or until someone reads it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from specee.models import local_file

AFTER_FAILURE = "draft.txt"  # no start takes it: it may be what failed
UNSENT = "unsent.txt"


def keep(draft: str, folder: Path, name: str) -> Path | None:
    """The file that a text which was not sent is in; None where there is no such text, or no place for it."""
    if not draft.strip():
        return None
    path = folder / name
    adds = name == UNSENT  # there may be one of another program
    try:
        local_file.make_folder(folder)
        file = os.fdopen(local_file.open_private(path, append=adds), "a", encoding="utf-8", errors="backslashreplace")
        with file:
            file.write(f"\n{draft}" if adds and file.tell() else draft)
    except OSError:
        return None
    return path


def take(folder: Path) -> str:
    """The unsent text, which is in no file any more then; empty where there is none."""
    path = folder / UNSENT
    taken = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        local_file.require_regular(path)
        path.replace(taken)  # of two programs that begin at once one has it
        text = taken.read_bytes().decode("utf-8", "replace")
        taken.unlink()
        return text
    return ""
