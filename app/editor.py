"""A text in the user's own editor."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specee.app.errors import USAGE, AppError
from specee.app.text_input import LIMIT, decode
from specee.models import local_file

DEFAULT = "vi"


def command() -> list[str]:
    """The user's editor. Raises AppError when it is not written as a shell would read it."""
    for name in ("VISUAL", "EDITOR"):
        value = os.environ.get(name, "")
        try:
            if words := shlex.split(value):
                return words
        except ValueError as error:
            raise AppError("bad editor", f"{name} is {value}: {error}", USAGE) from None
    return [DEFAULT]


def edit(text: str) -> str:
    """Opens an editor on a text; returns the text as it was saved. Raises AppError when that did not work."""
    program = command()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompt.md"
        file.write_text(text, "utf-8")
        try:
            with _interrupts_are_the_editors():
                code = subprocess.run([*program, str(file)], check=False).returncode
        except OSError as error:
            why = f"{program[0]}: {error.strerror}; set EDITOR to one that is installed"
            raise AppError("no editor", why, USAGE) from error
        if code != 0:
            raise AppError("the editor failed", f"{program[0]}: exit code {code}; the prompt is as it was")
        try:
            content = local_file.read(file, LIMIT)
        except local_file.TooLargeError as error:
            why = f"{program[0]} left a text of more than {LIMIT >> 20} MiB; the prompt is as it was"
            raise AppError("the editor failed", why) from error
        except OSError as error:
            why = f"{program[0]} left no text behind ({error.strerror}); the prompt is as it was"
            raise AppError("the editor failed", why) from error
    return decode(content, "what the editor wrote").text.rstrip("\n")


@contextmanager
def _interrupts_are_the_editors() -> Iterator[None]:
    """Ctrl+C there reaches this process too, and means nothing to it."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
