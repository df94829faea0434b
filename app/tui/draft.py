"""What stood in the prompt when the screen was left, or killed: in a file, until the next start or until someone reads
it."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from specee.models import local_file

AFTER_FAILURE = "draft.txt"  # no start takes it: it may be what failed
UNSENT = "unsent.txt"
TYPED = "typed-"
"""Begins the name of a copy, while its program runs."""


def keep(draft: str, folder: Path, name: str) -> Path | None:
    """The file that a text which was not sent is in; None where there is no such text, or no place for it."""
    if not draft.strip():
        return None
    path = folder / name
    adds = name == UNSENT  # there may be one of another program
    try:
        local_file.make_folder(folder)
        file = os.fdopen(local_file.open_private(path, append=adds), "a", encoding="utf-8", errors="backslashreplace")
        with file:
            file.write(f"\n{draft}" if adds and file.tell() else draft)
    except OSError:
        return None
    return path


class Copy:
    """A copy of what stands in the prompt, for the case that the program is killed. A lock says that it runs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"{TYPED}{uuid.uuid4().hex}.txt"
        self._lock: FileLock | None = None
        self._kept = ""

    def update(self, draft: str) -> None:
        """The prompt has this text now. Where it cannot be written, there is no copy."""
        if draft == self._kept:
            return
        self._kept = draft
        with suppress(OSError, Timeout):
            if not draft.strip():
                self._file.unlink(missing_ok=True)
                return
            if self._lock is None:
                local_file.make_folder(self._file.parent)
                lock = FileLock(self._file.with_suffix(".lock"), thread_local=False)
                lock.acquire(timeout=0)
                self._lock = lock
            new = self._file.with_suffix(".new")
            with os.fdopen(local_file.open_private(new), "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(draft)
            new.replace(self._file)

    def close(self) -> None:
        """The program ends, and has kept the text otherwise."""
        self.update("")
        if self._lock is not None:
            _give_up(self._lock)


def take(folder: Path) -> str:
    """The unsent text, also of programs that were killed, which is in no file any more then; empty where there is
    none."""
    texts = []
    for path in sorted(folder.glob(f"{TYPED}*.lock")):
        with suppress(OSError, Timeout):  # its program runs, or it is something else
            lock = FileLock(path, thread_local=False)
            lock.acquire(timeout=0)
            with suppress(OSError):  # the prompt was empty
                texts.append(_take_file(path.with_suffix(".txt")))
            path.with_suffix(".new").unlink(missing_ok=True)
            _give_up(lock)
    with suppress(OSError):
        texts.append(_take_file(folder / UNSENT))
    return "\n".join(text for text in texts if text)


def _take_file(path: Path) -> str:
    taken = path.with_suffix(f".{os.getpid()}")
    local_file.require_regular(path)
    path.replace(taken)  # of two programs that begin at once one has it
    text = taken.read_bytes().decode("utf-8", "replace")
    taken.unlink()
    return text


def _give_up(lock: FileLock) -> None:
    lock.release()
    with suppress(OSError):
        Path(lock.lock_file).unlink()
