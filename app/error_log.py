"""The log of unexpected errors: what a user can send us."""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path

from specee.app.errors import INTERNAL, AppError, as_app_error
from specee.models import local_file

LIMIT = 1 << 20  # bytes; a larger log becomes the old one


def record(folder: Path, error: BaseException) -> Path | None:
    """Appends an error with its traceback; returns the file, None when it cannot be written."""
    path = folder / "errors.log"
    try:
        local_file.make_folder(folder)
        if path.exists() and path.stat().st_size > LIMIT:
            path.replace(path.with_suffix(".old.log"))
        descriptor = local_file.open_private(path, append=True)
        with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{''.join(traceback.format_exception(error))}\n")
    except OSError:
        return None
    return path


def told(error: BaseException, folder: Path) -> AppError:
    """An error as a user is told it; one that we did not foresee goes to the log, and says where that is."""
    failure = as_app_error(error)
    if failure is error or failure.title != INTERNAL or (log := record(folder, error)) is None:
        return failure
    return AppError(failure.title, f"{failure.message}; {log} has the details", failure.exit_code)
