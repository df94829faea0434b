"""Files that a user names for us to write. What is there already is never overwritten."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from specee.app.errors import USAGE, AppError
from specee.app.paths import expand


def check(name: str) -> Path:
    """The path, if a new file can be made there: what takes minutes asks first. Raises AppError."""
    path = expand(name).absolute()
    try:
        if path.is_dir():
            raise AppError("cannot write", f"{path} is a folder; name a file in it", USAGE)
        if path.is_file():
            raise _there(path)
        if not path.parent.is_dir():
            raise AppError("cannot write", f"{path}: there is no such folder", USAGE)
    except OSError as error:  # a name too long, a folder that may not be searched
        raise _refused(path, error) from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise AppError("cannot write", f"{path}: no permission", USAGE)
    return path


def check_new(name: str) -> Path:
    """The same for what is put in its place when it is complete, and must not take that of a device."""
    path = check(name)
    if path.exists():
        raise AppError("cannot write", f"{path} is no regular file; give the name of a new one", USAGE)
    try:  # some places take no files though they say so, as /proc does
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        path.unlink()
    except FileExistsError:  # made by somebody else just now, or a link to nowhere
        raise _there(path) from None
    except OSError as error:
        raise _refused(path, error) from error
    return path


def write(name: str, text: str) -> Path:
    """Writes a new file, whole or not at all. Raises AppError."""
    path = check(name)
    new = not path.exists()  # else a device or a pipe
    try:
        descriptor = _open(path, new=new)
    except FileExistsError:  # made by somebody else just now, or a link to nowhere
        raise _there(path) from None
    except OSError as error:
        raise _refused(path, error) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        if new:
            with suppress(OSError):
                path.unlink()
        raise AppError("cannot write", f"{path}: {error.strerror or error}") from error
    return path


def _open(path: Path, *, new: bool) -> int:
    """A pipe that nobody reads is an error, not a wait."""
    if new:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    if not hasattr(os, "O_NONBLOCK"):  # Windows, where set_blocking is as new as Python 3.12
        return os.open(path, os.O_WRONLY)
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def _there(path: Path) -> AppError:
    return AppError("already there", f"{path} exists; delete it, or give another name", USAGE)


def _refused(path: Path, error: OSError) -> AppError:
    return AppError("cannot write", f"{path}: {error.strerror or error}", USAGE)
