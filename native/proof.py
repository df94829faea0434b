"""What was proven of a model in a context (src/proof.cpp), kept for the next start where the proof takes long."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from specee.native import abi, library, selftest

LONG_S = 0.2
"""A proof that takes less is made again at each start."""
MOST = 100  # verdicts that are kept


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of abi's levels, and why it is not a higher one; "" where it is the highest."""

    level: int
    limit: str


def verdict_file(model: Path, context: tuple[object, ...], cache_dir: Path | None = None) -> Path:
    """Where the verdict on this model file in such a context, by this library, is kept."""
    file, handle = model.stat(), library.loaded()
    of_library = Path(handle.directory, library.library_name()).stat()
    parts = (
        model.resolve(),
        (file.st_size, file.st_mtime_ns),
        (of_library.st_size, of_library.st_mtime_ns),
        handle.kernels.value,
        os.environ.get(selftest.NO_AMX),
        os.environ.get("SPECEE_KERNELS"),
        context,
    )
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
    return (cache_dir or platformdirs.user_cache_path("specee-chat")) / f"proof-{digest}"


def read(path: Path) -> Verdict | None:
    """An earlier verdict; None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        level, _, limit = path.read_text(encoding="utf-8").partition("\n")
        if int(level) in abi.LEVELS and (not limit) == (int(level) == abi.EXITS):
            return Verdict(int(level), limit)
    return None


def keep(path: Path, verdict: Verdict) -> None:
    """For the next start; where the folder cannot be written to, that one proves it again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{verdict.level}\n{verdict.limit}", encoding="utf-8")
        kept = sorted(path.parent.glob("proof-*"), key=lambda file: file.stat().st_mtime)
        for old in kept[:-MOST]:
            old.unlink()
