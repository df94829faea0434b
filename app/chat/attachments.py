"""`@path` in a prompt: the text of the file goes with it, and the prompt stays as it was typed."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from specee.app.chat.file_reference import files_named
from specee.app.errors import USAGE, AppError
from specee.app.text_input import LIMIT, decode, too_large
from specee.models import local_file


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
        content = local_file.read(path, LIMIT)
    except local_file.TooLargeError:
        raise too_large(str(path)) from None
    except OSError as error:
        raise AppError("cannot attach", f"{path} {_why(path, error)}", USAGE) from error
    decoded = decode(content, str(path))
    text = decoded.text.rstrip("\n")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    name = os.fsencode(path.name).decode("utf-8", "replace")
    return Attachment(path, len(content), f"\n\n{name}:\n{fence}\n{text}\n{fence}", decoded.doubt)


def _why(path: Path, error: OSError) -> str:
    if isinstance(error, local_file.NotRegularError):
        return "is a folder; name a file in it" if error.is_folder else "is no regular file"
    if isinstance(error, local_file.EndlessError):
        return "has no end: it is not a file that can be sent"
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"is a link to {path.readlink()}, which is not there"
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself"
    return f"cannot be read: {error.strerror or error}"
