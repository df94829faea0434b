"""The standard streams: there whatever the shell did with them, and able to take every text.

Whatever is printed goes through here, so that no text steers the terminal: control characters become visible.

A standard output that cannot be written ends the program with an error; nothing ends because of standard error, where
errors are told.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TextIO

from specee.app.cli.substitutes import Substitutes
from specee.app.errors import FAILURE, AppError
from specee.app.formatting import visible

_OUTPUT, _ERRORS = Substitutes("specee.output"), Substitutes("specee.errors")


class OutputError(AppError):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__("cannot write to standard output", f"{error.strerror or error}", FAILURE)


def prepare() -> None:
    """Before anything is read, written or opened: what is opened next must not get a standard stream's number."""
    # a closed output takes nothing rather than losing what was asked for, so it is opened for reading
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape")
    output = _Output(1, "w", closefd=False)
    sys.stdout = _writer(output, sys.stdout, _OUTPUT, by_line=output.isatty())
    sys.stderr = _writer(_Errors(2, "w", closefd=False), sys.stderr, _ERRORS, by_line=True)


def finish() -> None:
    """At the end: says if the output is not quite the text.

    Of one that cannot be written the interpreter would complain once more.
    """
    try:
        if _Style.is_set:
            style_output(PLAIN)
        sys.stdout.flush()
    except (OSError, AppError):
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return
    if _OUTPUT.used:
        lacking = f"the encoding {sys.stdout.encoding} of the output lacks characters of this text"
        told = f"{lacking}: plain ones or ? stand for them; PYTHONIOENCODING=utf-8 has them all"
        print(f"specee-chat: {told}", file=sys.stderr)


def _writer(raw: io.FileIO, before: TextIO | None, substitutes: Substitutes, *, by_line: bool) -> io.TextIOWrapper:
    """In the encoding that the system or PYTHONIOENCODING says."""
    encoding = getattr(before, "encoding", None) or "utf-8"
    return _Text(io.BufferedWriter(raw), encoding, substitutes.name, line_buffering=by_line)


def control(sequence: str) -> None:
    """Sends a control sequence of our own to the terminal of standard error."""
    sys.stderr.flush()
    sys.stderr.buffer.write(sequence.encode("ascii"))
    sys.stderr.buffer.flush()


DIM, PLAIN = "\x1b[2m", "\x1b[0m"


class _Style:
    """Of standard output: what ends in the middle of something leaves a plain terminal."""

    is_set = False


def style_output(sequence: str) -> None:
    """Sends a style of our own to the terminal of standard output, unless the user wants none."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        sys.stdout.flush()
        sys.stdout.buffer.write(sequence.encode("ascii"))
        _Style.is_set = sequence != PLAIN


class _Text(io.TextIOWrapper):
    def write(self, text: str) -> int:
        return super().write(visible(text))


class _Output(io.FileIO):
    def write(self, data: bytes) -> int:  # type: ignore[override]
        while True:
            try:
                if (n := super().write(data)) is not None:
                    return n
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputError(error) from error
            select.select([], [self], [])  # another program has made the pipe or the terminal non-blocking


class _Errors(io.FileIO):
    def write(self, data: bytes) -> int:  # type: ignore[override]
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return len(memoryview(data).cast("B"))
