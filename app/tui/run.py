"""Runs the screen, and says what ended it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from specee.app import error_log
from specee.app.chat.session import Session
from specee.app.errors import FAILURE, AppError
from specee.app.options import ChatOptions
from specee.app.tui import draft
from specee.app.tui.app import ChatApp
from specee.app.tui.ascii_filter import AsciiFilter
from specee.app.tui.welcome import QUESTIONS

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
LATE_SECONDS = 5.0  # of a terminal that closes two come at once, one from the shell


def run_tui(
    session: Session,
    options: ChatOptions,
    personas: Mapping[str, str],
    notice: str | None,
    ascii_filter: AsciiFilter | None = None,
) -> int:
    """Runs the screen until the user leaves, or a signal comes; returns the exit code. Raises what ended it otherwise.

    What stands in the prompt then stands there again at the next start.
    """
    unsent = draft.take(session.logs) if session.store.is_kept else ""
    copy = draft.Copy(session.logs) if session.store.is_kept else None
    app = ChatApp(
        session, options, personas, notice, first_start=True, ascii_filter=ascii_filter, unsent=unsent, copy=copy
    )
    before, threading.excepthook = threading.excepthook, app.thread_failed
    failure: Exception | None = None
    try:
        with _ended_by_signals(app):
            code = app.run()
    except Exception as error:
        failure = error
    else:
        failure = app.fatal_error
    finally:
        threading.excepthook = before
    text = app.controller.unsent
    if failure is None:
        if copy is not None:
            written = "" if text in QUESTIONS else text
            kept = draft.keep(written, session.logs, draft.UNSENT) is not None
            if kept:
                print("what you had written stands in the prompt at the next start", file=sys.stderr)
            if kept or not written.strip():
                copy.close()
        return FAILURE if code is None else code
    told = error_log.told(failure, session.logs)
    expected = copy is not None and isinstance(failure, AppError)  # the terminal is gone: nobody reads the line
    path = draft.keep(text, session.logs, draft.UNSENT if expected else draft.AFTER_FAILURE)
    if path is None:
        raise told from None
    if copy is not None:
        copy.close()
    raise AppError(told.title, f"{told.message}; what you had written is in {path}", told.exit_code) from None


@contextmanager
def _ended_by_signals(app: ChatApp) -> Iterator[None]:
    """Such a signal leaves the screen as a key does; one that comes LATE_SECONDS later ends the program at once."""
    before = {number: signal.getsignal(number) for number in ENDING}
    first: list[float] = []

    def end(number: int, _: object) -> None:
        first.append(time.monotonic())
        if first[-1] - first[0] >= LATE_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        app.end_soon(128 + number)

    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
