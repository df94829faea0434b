"""Where `train` keeps what it records, and what it must not keep."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

_CHATS = "chats"


def folder(cache: Path, sha256: str) -> Path:
    """Of the model with this hash."""
    return cache / "training" / sha256[:16]


def lock(work: Path) -> FileLock:
    """Held while a head is trained. Raises Timeout where another program holds it."""
    return FileLock(work / "lock", timeout=0)


def chats(work: Path) -> Path:
    """The user's chats, in a model's folder: only while a head learns from them."""
    return work / _CHATS


def forget_chats(cache: Path) -> None:
    """What a training that was ended from outside left of them; one that is at work does so itself at its end."""
    for left in cache.glob(f"training/*/{_CHATS}"):
        with suppress(Timeout, OSError), lock(left.parent):
            shutil.rmtree(left, ignore_errors=True)
