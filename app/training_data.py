"""Where `train` keeps what it records, and what it must not keep."""

from __future__ import annotations

import shutil
from pathlib import Path

_CHATS = "chats"


def folder(cache: Path, sha256: str) -> Path:
    """Of the model with this hash."""
    return cache / "training" / sha256[:16]


def chats(work: Path) -> Path:
    """The user's chats, in a model's folder: only while a head learns from them."""
    return work / _CHATS


def forget_chats(cache: Path) -> None:
    """What a training that was ended from outside left of them."""
    for left in cache.glob(f"training/*/{_CHATS}"):
        shutil.rmtree(left, ignore_errors=True)
