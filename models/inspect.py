"""What a GGUF file says of itself, without loading it, and its hash."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specee.models.errors import ModelError

MAGIC = b"GGUF"
_HASH_CHUNK = 4 << 20


@dataclass(frozen=True)
class ModelFile:
    """The header's facts. `file_bytes` is the size on disk."""

    path: Path
    name: str
    arch: str
    n_layer: int
    n_embd: int
    n_ctx_train: int
    chat_template: str | None
    file_bytes: int


def check_magic(path: Path) -> None:
    """Raises ModelError unless the file starts like a GGUF file: the cheap test before anything is loaded."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError("model not readable", f"{path}: {error.strerror or error}") from error
    if head[:4] != MAGIC:
        what = "is empty" if not head else "is not a GGUF file"
        raise ModelError("not a model", f"{path} {what}; specee-chat reads models in the GGUF format")
    if len(head) < 8:
        raise _truncated(path)


def inspect(path: Path) -> ModelFile:
    """Reads the header. Raises ModelError when the file is not a GGUF file, is cut off, or lacks what we need."""
    check_magic(path)
    from gguf import GGUFReader  # slow to import: only when a header is really read

    try:
        reader = GGUFReader(path)
        _check_complete(path, reader)
        arch = _field(reader, "general.architecture")
        if arch is None:
            raise ModelError("not a model", f"{path} names no architecture in its header")
        return ModelFile(
            path=path,
            name=str(_field(reader, "general.name") or path.stem),
            arch=str(arch),
            n_layer=int(_field(reader, f"{arch}.block_count") or 0),
            n_embd=int(_field(reader, f"{arch}.embedding_length") or 0),
            n_ctx_train=int(_field(reader, f"{arch}.context_length") or 0),
            chat_template=_field(reader, "tokenizer.chat_template"),
            file_bytes=path.stat().st_size,
        )
    except ModelError:
        raise
    except Exception as error:  # the reader fails in many ways (index, value, memory-map) on a damaged file
        raise _truncated(path) from error


def _check_complete(path: Path, reader: Any) -> None:
    end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    if path.stat().st_size < end:
        raise _truncated(path)


def _truncated(path: Path) -> ModelError:
    return ModelError("damaged model", f"{path} is cut off or damaged; get the file again")


def _field(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def sha256(path: Path, cache_dir: Path | None = None) -> str:
    """The file's SHA-256 as hex. With `cache_dir` it is remembered by path, size and time of change."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    store = cache_dir / "hashes.json" if cache_dir is not None else None
    known = _read_cache(store)
    if key in known:
        return known[key]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    if store is not None:
        _write_cache(store, {**known, key: digest.hexdigest()})
    return digest.hexdigest()


def _read_cache(store: Path | None) -> dict[str, str]:
    try:
        loaded = json.loads(store.read_text("utf-8")) if store is not None else {}
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in loaded.items()} if isinstance(loaded, dict) else {}


def _write_cache(store: Path, entries: dict[str, str]) -> None:
    """A cache that cannot be written costs time only."""
    part = store.with_name(f"{store.name}.{os.getpid()}")
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(entries), "utf-8")
        part.replace(store)
    except OSError:
        part.unlink(missing_ok=True)
