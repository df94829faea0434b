"""What was proven of a model in a context (src/proof.cpp), kept for the next start where the proof takes long."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from specee.native import abi, library, selftest

LONG_S = 0.2
"""A proof that takes less is made again at each start."""
_PARTS = re.compile(r"-00001(-of-(\d{5})\.gguf)$")
MOST = 100  # verdicts that are kept


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of abi's levels, and why it is not a higher one; "" where it is the highest.

    `n_rows`: so many at once get the bits that each has alone.
    """

    level: int
    limit: str
    n_rows: int


def verdict_file(model: Path, context: tuple[object, ...], cache_dir: Path | None = None) -> Path:
    """Where the verdict on this model file in such a context, by this library, is kept."""
    handle = library.loaded()
    of_library = Path(handle.directory, library.library_name()).stat()
    parts: tuple[object, ...] = (
        *((part.resolve(), part.stat().st_size, part.stat().st_mtime_ns) for part in _parts(model)),
        (of_library.st_size, of_library.st_mtime_ns),
        handle.kernels.value,
        os.environ.get(selftest.NO_AMX),
        os.environ.get("SPECEE_KERNELS"),
        context,
    )
    if backend := os.environ.get(library.BACKEND):
        with contextlib.suppress(OSError):
            parts += (Path(backend).resolve(), Path(backend).stat().st_size, Path(backend).stat().st_mtime_ns)
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
    return (cache_dir or platformdirs.user_cache_path("specee-chat")) / f"proof-{digest}"


def last_file(model: Path, cache_dir: Path | None = None) -> Path:
    """Where what was found out about this model file at its last start on the CPU is kept, to be shown."""
    kept = verdict_file(model, ("last",), cache_dir)
    return kept.with_name(kept.name.replace("proof-", "level-"))


def _parts(model: Path) -> list[Path]:
    """The files of a model by the name of its first one, as llama.cpp finds them."""
    count = _PARTS.search(model.name)
    if count is None:
        return [model]
    named = (model.with_name(f"{model.name[: count.start()]}-{i:05}{count[1]}") for i in range(1, int(count[2]) + 1))
    return [part for part in named if part.is_file()] or [model]


def read(path: Path) -> Verdict | None:
    """An earlier verdict; None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        checked, text = path.read_text(encoding="utf-8").split("\n", 1)
        if checked != _checksum(text):  # damaged, or another program is writing it
            return None
        level, n_rows, limit = text.split("\n", 2)
        verdict = Verdict(int(level), limit, int(n_rows))
        is_whole = verdict.level in abi.LEVELS and (not limit) == (verdict.level == abi.EXITS)
        if is_whole and (verdict.n_rows > 1) == (verdict.level > abi.DENSE):
            return verdict
    return None


def _checksum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def keep(path: Path, verdict: Verdict) -> None:
    """For the next start; where the folder cannot be written to, that one proves it again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"{verdict.level}\n{verdict.n_rows}\n{verdict.limit}"
        path.write_text(f"{_checksum(text)}\n{text}", encoding="utf-8")
        of_kind = f"{path.name.partition('-')[0]}-*"
        kept = sorted(path.parent.glob(of_kind), key=lambda file: file.stat().st_mtime)
        for old in kept[:-MOST]:
            old.unlink()
