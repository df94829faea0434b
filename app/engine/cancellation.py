"""Stopping a request from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """Which requests shall stop. The listener's thread cancels, the engine's thread asks between tokens.

    Only inside `interruptible` is the computation itself interrupted: while a prompt is read. A policy always finishes
    its step, so that no row is left with layers undone.
    """

    def __init__(self, interrupt: Callable[[], None], resume: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._interrupt, self._resume = interrupt, resume
        self._cancelled: set[int] = set()
        self._all = False
        self._exposed: int | None = None

    def cancel(self, request: int) -> None:
        """Stop a request, also one that has not begun."""
        with self._lock:
            self._cancelled.add(request)
            if self._exposed == request:
                self._interrupt()

    def cancel_all(self) -> None:
        """Stop whatever runs and whatever comes: the process ends."""
        with self._lock:
            self._all = True
            self._interrupt()

    @property
    def is_wanted(self) -> bool:
        """Whether any request shall stop."""
        return self._all or bool(self._cancelled)

    def is_cancelled(self, request: int) -> bool:
        """Whether the request shall stop."""
        return self._all or request in self._cancelled

    @contextmanager
    def interruptible(self, request: int) -> Iterator[None]:
        """A computation that may be interrupted; the engine then raises."""
        with self._lock:
            self._resume()
            self._exposed = request
            if self.is_cancelled(request):
                self._interrupt()
        try:
            yield
        finally:
            with self._lock:
                self._exposed = None
                self._resume()

    def forget(self, request: int) -> None:
        """The request is over."""
        with self._lock:
            self._cancelled.discard(request)
