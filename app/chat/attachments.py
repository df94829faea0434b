"""`@path` in a prompt: the text of the file goes with it, and the prompt stays as it was typed."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from specee.app.chat.file_reference import files_named
from specee.app.errors import USAGE, AppError
from specee.app.text_input import LIMIT, decode, too_large


@dataclass(frozen=True)
class Attachment:
    """A file that a prompt names. `block` is how its text stands in the prompt; `doubt` as of a DecodedText."""

    path: Path
    n_bytes: int
    block: str = field(repr=False)
    doubt: str | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.n_bytes} bytes)"


def attach(text: str) -> tuple[str, list[Attachment]]:
    """The text of the files that the prompt names, as it goes behind the prompt, and which files they are, each once.

    What an @ means: see file_reference. Raises AppError for a file that is not there, cannot be read or is no text.
    """
    files: dict[Path, Attachment] = {}
    for path in files_named(text):
        if path not in files:
            files[path] = _read(path)
    return "".join(file.block for file in files.values()), list(files.values())


def _read(path: Path) -> Attachment:
    try:
        content = _bytes(path)
    except OSError as error:
        raise AppError("cannot attach", f"{path} {_why(path, error)}", USAGE) from error
    if len(content) > LIMIT:
        raise too_large(str(path))
    decoded = decode(content, str(path))
    text = decoded.text.rstrip("\n")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    name = os.fsencode(path.name).decode("utf-8", "replace")
    return Attachment(path, len(content), f"\n\n{name}:\n{fence}\n{text}\n{fence}", decoded.doubt)


def _why(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"is a link to {path.readlink()}, which is not there"
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself"
    return f"cannot be read: {error.strerror or error}"


def _bytes(path: Path) -> bytes:
    """At most one byte more than LIMIT. Nothing waits: what could do so forever (a pipe, a device) is refused."""
    # O_NONBLOCK: some files of /proc say that they are regular, and have more only when something happens
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        what = "a folder; name a file in it" if stat.S_ISDIR(mode) else "no regular file"
        raise AppError("cannot attach", f"{path} is {what}", USAGE)
    with io.FileIO(fd) as file:
        content = bytearray()
        while len(content) <= LIMIT and (piece := file.read(LIMIT + 1 - len(content))) != b"":
            if piece is None:
                raise AppError("cannot attach", f"{path} has no end: it is not a file that can be sent", USAGE)
            content += piece
    return bytes(content)
