"""Signs of life: the engine process sends them, and the user's process ends an engine that sends none any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from specee.app.engine.protocol import Alive, Emit

BEAT_SECONDS = 1.0
STUCK_SECONDS = 300.0
"""A computation (a step, or a chunk of a prompt) that takes longer will not end."""
SILENT_SECONDS = 15.0
"""An engine that sends nothing for so long is stopped or hangs: on a machine that swaps, some seconds say nothing."""
START_SECONDS = 60.0
"""The same before its first sign of life: Python may take long to start on a busy machine."""


class Heartbeat:
    """In the engine process: says once a second that it lives, unless one computation lasts far too long.

    Beats are counted, not seconds: while the process or the machine is suspended there are none.
    """

    def __init__(self, send: Emit, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._send = send
        self._most = stuck_seconds / BEAT_SECONDS
        self._beats = 0  # since the computation under way began
        self._computing = False

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self) -> None:
        """A computation begins."""
        self._beats, self._computing = 0, True

    def end(self) -> None:
        """It has ended."""
        self._computing = False

    def _run(self) -> None:
        while True:
            if not self._computing or self._beats < self._most:
                try:
                    self._send(Alive())
                except OSError:
                    return  # nobody listens any more
            time.sleep(BEAT_SECONDS)
            self._beats += 1


class Watchdog:
    """In the user's process: calls `end` once the engine has given no sign of life for long."""

    def __init__(self, end: Callable[[], None], silent_seconds: float = SILENT_SECONDS) -> None:
        self.has_bitten = False
        self.silent_seconds = silent_seconds
        self._end = end
        self._heard, self._stopped = threading.Event(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def heard(self) -> None:
        """A sign of life has come."""
        self._heard.set()

    def stop(self) -> None:
        """The engine has ended."""
        self._stopped.set()

    def _run(self) -> None:
        tick = min(BEAT_SECONDS, self.silent_seconds / 2)
        silent = self.silent_seconds - max(START_SECONDS, self.silent_seconds)
        # ticks are counted: after this process was suspended itself, what the engine has sent meanwhile is read first
        while not self._stopped.wait(tick):
            silent = 0.0 if self._heard.is_set() else silent + tick
            self._heard.clear()
            if silent >= self.silent_seconds:
                self.has_bitten = True
                self._end()
                return
