"""The log of unexpected errors: what a user can send us."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

LIMIT = 1 << 20  # bytes; a larger log becomes the old one


def record(folder: Path, error: BaseException) -> Path | None:
    """Appends an error with its traceback; returns the file, None when it cannot be written."""
    path = folder / "errors.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LIMIT:
            path.replace(path.with_suffix(".old.log"))
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{''.join(traceback.format_exception(error))}\n")
    except OSError:
        return None
    return path
