"""Runs the screen, and says what ended it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from specee.app import error_log
from specee.app.chat.session import Session
from specee.app.errors import FAILURE, AppError
from specee.app.options import ChatOptions
from specee.app.tui.app import ChatApp
from specee.app.tui.ascii_filter import AsciiFilter
from specee.models import local_file


def run_tui(
    session: Session,
    options: ChatOptions,
    personas: Mapping[str, str],
    notice: str | None,
    ascii_filter: AsciiFilter | None = None,
) -> int:
    """Runs the screen until the user leaves; returns the exit code. Raises what ended it otherwise."""
    app = ChatApp(session, options, personas, notice, first_start=True, ascii_filter=ascii_filter)
    before, threading.excepthook = threading.excepthook, app.thread_failed
    failure: Exception | None = None
    try:
        code = app.run()
    except Exception as error:
        failure = error
    else:
        failure = app.fatal_error
    finally:
        threading.excepthook = before
    if failure is None:
        return FAILURE if code is None else code
    told = error_log.told(failure, session.logs)
    draft = _kept(app.prompt.content, session.logs)
    if draft is None:
        raise told from None
    raise AppError(told.title, f"{told.message}; what you had written is in {draft}", told.exit_code) from None


def _kept(draft: str, folder: Path) -> Path | None:
    """The file that a text which was not sent is in; None where there is no such text, or no place for it."""
    if not draft.strip():
        return None
    path = folder / "draft.txt"
    try:
        local_file.make_folder(folder)
        with os.fdopen(local_file.open_private(path), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(draft)
    except OSError:
        return None
    return path
