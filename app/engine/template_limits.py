"""Bounds for chat templates, which are code of the model's file and may compute without end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAX_SECONDS = 5.0  # of one rendering
MAX_SIZE = 1 << 24  # characters or items of a product, bits of a power


class TooMuchError(Exception):
    """A template computes more than any chat needs."""


def bounded(template: Any, source: str) -> Any:
    """`source` in the environment of a template of jinja2's sandbox, with bounds for products and powers: one alone
    may take for ever."""
    environment = template.environment
    call = environment.call_binop

    def call_binop(context: Any, operator: str, left: Any, right: Any) -> Any:
        if _size(operator, left, right) > MAX_SIZE:
            raise TooMuchError(f"it computes {_shown(left)} {operator} {_shown(right)}")
        return call(context, operator, left, right)

    environment.intercepted_binops = frozenset(("*", "**"))
    environment.call_binop = call_binop
    return environment.from_string(source)


def _size(operator: str, left: Any, right: Any) -> float:
    if operator == "**":
        return left.bit_length() * right if isinstance(left, int) and isinstance(right, int) else 0
    for value, times in ((left, right), (right, left)):
        if isinstance(value, (str, bytes, list, tuple)) and isinstance(times, int):
            return len(value) * times
    return left.bit_length() + right.bit_length() if isinstance(left, int) and isinstance(right, int) else 0


def _shown(value: Any) -> str:
    return repr(value)[:20] if isinstance(value, (int, float)) and abs(value) < 10**18 else type(value).__name__


@contextmanager
def deadline() -> Iterator[None]:
    """What is computed within may take MAX_SECONDS, where the system can say so. Raises TooMuchError."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def end(*_: object) -> None:
        raise TooMuchError(f"it computes for more than {MAX_SECONDS:g} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
