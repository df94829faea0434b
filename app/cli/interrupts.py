"""Ctrl+C while an answer is under way, outside the screen."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from specee.app.chat.session import Session


@contextmanager
def interrupt_cancels(session: Session) -> Iterator[None]:
    """The first Ctrl+C ends the answer in good order; the second, or one before it has begun, ends the program."""
    pressed = False

    def handle(*_: object) -> None:
        nonlocal pressed
        if pressed or not session.answering:
            raise KeyboardInterrupt
        pressed = True
        # in a thread: the signal may have come in the middle of a write to the same pipe
        threading.Thread(target=session.cancel, daemon=True).start()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
