"""How far something long has come: one line that is rewritten on a terminal, a line a step elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from specee.app.cli.streams import control
from specee.app.formatting import duration, visible

REDRAW_SECONDS = 0.1
SURE_SECONDS = 10.0  # after which the time left is guessed
CLEAR_LINE = "\r\x1b[2K"


class TimeLeft:
    """How far a step is, and how long it still takes, by how fast it was so far."""

    def __init__(self) -> None:
        self._step: str | None = None
        self._began = self._share = 0.0

    def show(self, step: str, share: float | None) -> str:
        """`share` done, in [0, 1]; None where it is not known."""
        now = time.monotonic()
        if step != self._step:  # one that goes on begins somewhere
            self._step, self._began, self._share = step, now, share or 0.0
        if share is None:
            return ""
        elapsed, done = now - self._began, share - self._share
        if elapsed < SURE_SECONDS or done <= 0.0 or share >= 1.0:
            return f"{share:4.0%}"
        return f"{share:4.0%}  {duration(elapsed / done * (1.0 - share))} left"


class ProgressLine:
    """On standard error; gone when the `with` block ends."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._step: str | None = None
        self._shown_at = 0.0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, step: str, progress: str = "") -> None:
        """`step` is what is being done, `progress` how far it is; only a terminal shows the latter."""
        now = time.monotonic()
        new = step != self._step
        if self._terminal and (new or now - self._shown_at >= REDRAW_SECONDS):
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be rewritten
            control(CLEAR_LINE)
            sys.stderr.write(visible(f"{step}  {progress}".replace("\n", " "))[:width])
            sys.stderr.flush()
            self._shown_at = now
        elif new and not self._terminal:
            print(step, file=sys.stderr)
        self._step = step

    def clear(self) -> None:
        """Takes the line away, so that something else can be printed."""
        if self._terminal and self._step is not None:
            control(CLEAR_LINE)
        self._step = None
