"""The hash of a model's file: computed once, then remembered until the file changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from specee.models import local_file, source

MAX_BYTES = 16 << 20  # of what is remembered
_HASH_CHUNK = 4 << 20


def sha256(path: Path, cache_dir: Path | None = None) -> str:
    """The file's SHA-256 as hex. With `cache_dir` it is remembered by path, size and time of change."""
    store = _store(cache_dir)
    known = _read_cache(store)
    if (found := known.get(_key(path))) is not None:
        return found
    digest = hashlib.sha256()
    with os.fdopen(local_file.open_to_read(path), "rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    remember(path, digest.hexdigest(), cache_dir)
    return digest.hexdigest()


def known_of_parts(files: Sequence[Path], cache_dir: Path) -> str | None:
    """What was remembered of a model in these files."""
    return _read_cache(_store(cache_dir)).get(_key_of_parts(files))


def remember_parts(files: Sequence[Path], digest: str, cache_dir: Path | None) -> None:
    """Keeps the hash of a model in several files."""
    if (store := _store(cache_dir)) is not None:
        _write_cache(store, {**_read_cache(store), _key_of_parts(files): digest})


def known_sha256(path: Path, cache_dir: Path) -> str | None:
    """The hash as far as it is known without reading the file: remembered, or its name in the shared cache."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == hashlib.sha256().digest_size * 2:
        return blob.name
    return _read_cache(_store(cache_dir)).get(_key(path))


def remember(path: Path, digest: str, cache_dir: Path | None) -> None:
    """Keeps the hash of a file that was checked otherwise, so that `sha256` need not read it again."""
    if (store := _store(cache_dir)) is not None:
        _write_cache(store, {**_read_cache(store), _key(path): digest})


def known_files(cache_dir: Path) -> list[Path]:
    """Files whose hash is remembered, and which have not changed since; of a model in parts the first one."""
    found = []
    for key in _read_cache(_store(cache_dir)):
        path = Path(key.rsplit("|", 2)[0])
        with suppress(OSError, ValueError):
            if key in (_key(path), _key_of_parts([path.with_name(name) for name in source.parts(path.name)])):
                found.append(path)
    return found


def _key(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _key_of_parts(files: Sequence[Path]) -> str:
    keys = hashlib.sha256("\n".join(map(_key, files)).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{files[0].parent.resolve() / files[0].name}|{len(files)} parts|{keys}"


def _store(cache_dir: Path | None) -> Path | None:
    return cache_dir / "hashes.json" if cache_dir is not None else None


def _read_cache(store: Path | None) -> dict[str, str]:
    try:
        loaded = json.loads(local_file.read(store, MAX_BYTES)) if store is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in loaded.items()} if isinstance(loaded, dict) else {}


def _write_cache(store: Path, entries: dict[str, str]) -> None:
    """A cache that cannot be written costs time only."""
    part = store.with_name(f"{store.name}.{os.getpid()}")
    try:
        local_file.make_folder(store.parent)
        part.write_text(json.dumps(entries), "utf-8")
        part.replace(store)
    except OSError:
        with suppress(OSError):
            part.unlink()
