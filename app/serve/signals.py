"""Signals that end the server, from before its model is loaded until the engine has ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from specee.app.errors import OK

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
SIGNALS = tuple(number for name in NAMES if (number := getattr(signal, name, None)) is not None)


class Signals:
    """The first signal calls `on_first`; further ones change nothing, as the end takes a moment only."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.on_first = on_first
        self.first: signal.Signals | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """In the main thread. A signal that was ignored before, as nohup and & in scripts have it, stays so."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        handled = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in handled:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in handled.items():
                signal.signal(number, handler)

    def exit_code(self) -> int:
        """What a shell shows of a program that such a signal ended. SIGTERM is what a service manager looks for.

        Of the others this process does not die, as SIGQUIT would leave a core file.
        """
        if self.first is signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
        return OK if self.first is None else 128 + self.first

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first = signal.Signals(number)
            self.on_first()
