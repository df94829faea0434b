"""Files that a user names, or that another program may have changed or replaced: nothing waits for one of them, or
reads it without end. And files that nobody else may read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from specee.models.errors import USAGE, ModelError

_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_ONLY_OURS = 0o600  # of a new file; one that is there keeps its mode


class NoHomeError(ModelError):
    """~somebody, who is not known here."""

    def __init__(self, name: str) -> None:
        super().__init__("no such user", f"{name}: there is no home folder for {name.partition('/')[0]}", USAGE)


class NotRegularError(OSError):
    """A pipe, a device, a socket or a folder, where a file is wanted."""

    def __init__(self, path: Path, mode: int) -> None:
        self.is_folder = stat.S_ISDIR(mode)
        super().__init__(errno.EINVAL, "it is a folder" if self.is_folder else "it is no regular file", str(path))


class EndlessError(OSError):
    """What says that it is a regular file, and waits for something to happen: some files of /proc."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EAGAIN, "it has no end", str(path))


class TooLargeError(OSError):
    """More bytes than are read."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(errno.EFBIG, f"it is larger than {limit >> 20} MiB", str(path))


def expand(name: str) -> Path:
    """A path as a user writes it, with ~ for a home folder. Raises NoHomeError."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise NoHomeError(name) from None


def require_regular(path: Path) -> None:
    """Raises OSError where another program is about to open what must not be opened, or what is not there."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise NotRegularError(path, mode)


def open_to_read(path: Path) -> int:
    """The descriptor of a regular file. Raises OSError."""
    return _open(path, os.O_RDONLY)


def read(path: Path, limit: int) -> bytes:
    """All of a regular file of at most `limit` bytes. Raises OSError."""
    with open(open_to_read(path), "rb", buffering=0) as file:
        content = bytearray()
        while (piece := file.read(limit + 1 - len(content))) != b"":
            if piece is None:
                raise EndlessError(path)
            content += piece
            if len(content) > limit:
                raise TooLargeError(path, limit)
    return bytes(content)


def open_private(path: Path, *, append: bool = False) -> int:
    """The descriptor of a file to write, which is made if need be, and then for this user alone. Raises OSError."""
    return _open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC))


def make_private(path: Path) -> None:
    """A file that everybody may read, as the system's default has it, is for its owner alone; another mode was chosen,
    and stays. Raises OSError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & stat.S_IROTH:
        path.chmod(mode & _ONLY_OURS)


def make_folder(path: Path) -> None:
    """Makes a folder, and those it is in as far as they are not there, for this user alone. Raises OSError."""
    missing = []
    for folder in path.parents:
        if folder.exists():
            break
        missing.append(folder)
    for folder in (*reversed(missing), path):
        folder.mkdir(0o700, exist_ok=True)


def _open(path: Path, flags: int) -> int:
    """What is no regular file is not opened at all, since that alone can do something (a tape is rewound)."""
    try:
        require_regular(path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | _AT_ONCE, _ONLY_OURS)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):  # replaced just now
        os.close(descriptor)
        raise NotRegularError(path, mode)
    return descriptor
