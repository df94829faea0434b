"""Textual's terminal of Unix, which comes back from every stop: Textual knows only one that asks (Ctrl+Z)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from textual.drivers.linux_driver import LinuxDriver


class UnixDriver(LinuxDriver):
    """After SIGSTOP from elsewhere, too, the terminal is set up and drawn again: the shell had it meanwhile."""

    _coming_back = False

    def _sigcont_application(self, *_: object) -> None:
        if self._writer_thread is None or not self._auto_restart or self._coming_back:  # the screen is not ours yet
            return
        self._coming_back = True
        try:
            if not self._must_signal_resume:  # nobody asked, so the screen was not left
                self._wait_for_foreground()
                self.suspend_application_mode()
                self._must_signal_resume = True
            super()._sigcont_application()
        finally:
            self._coming_back = False

    def _wait_for_foreground(self) -> None:
        """In the background nobody may draw: stops until the shell gives the terminal back."""
        with suppress(OSError):  # there is no terminal any more
            while os.tcgetpgrp(self.fileno) != os.getpgrp():
                os.kill(os.getpid(), signal.SIGSTOP)
