"""The hash by which a model is known: calibrations, draft heads and measurements belong to it.

Of a model in one file it is the file's. Of one in parts, or joined from parts, it is that of the file that the parts
were made from, whose bytes follow from theirs: llama.cpp's gguf-split copies values and tensors as they are, in their
order, and adds values of its own. So a model that was split, or joined again, keeps what was learned of it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from specee.models import file_hash, gguf_header, gguf_types, local_file
from specee.models.gguf_header import Header, Tensor

OF_SPLITTING = "split."
"""What the keys begin with that only parts have."""
_CHUNK = 4 << 20


def of_model(header: Header, cache_dir: Path | None = None) -> str:
    """As hex. With `cache_dir` it is remembered until one of the files changes."""
    if not any(key.startswith(OF_SPLITTING) for key in header.spans):
        return file_hash.sha256(header.files[0], cache_dir)
    if cache_dir is not None and (known := file_hash.known_of_parts(header.files, cache_dir)) is not None:
        return known
    digest = hashlib.sha256()
    for piece in whole_file(header):
        digest.update(piece)
    file_hash.remember_parts(header.files, digest.hexdigest(), cache_dir)
    return digest.hexdigest()


def known(files: tuple[Path, ...], cache_dir: Path) -> str | None:
    """The same as far as it is known without reading the files."""
    found = file_hash.known_of_parts(files, cache_dir)
    return found if found is not None or len(files) > 1 else file_hash.known_sha256(files[0], cache_dir)


def whole_file(header: Header) -> Iterator[bytes]:
    """The bytes of the one file that has what the parts of a model have."""
    alignment = int(header.values.get("general.alignment", gguf_header.DEFAULT_ALIGNMENT))
    kept = [span for key, span in header.spans.items() if not key.startswith(OF_SPLITTING)]
    files = [os.fdopen(local_file.open_to_read(path), "rb") for path in header.files]
    try:
        files[0].seek(len(gguf_header.MAGIC))
        head = gguf_header.MAGIC + files[0].read(4) + struct.pack("<QQ", len(header.tensors), len(kept))
        size = len(head)
        yield head
        for start, stop in kept:
            size += stop - start
            yield from _bytes(files[0], start, stop - start)
        at, entries = 0, []
        for tensor in header.tensors:
            entries.append(_entry(tensor, at))
            at += -(-tensor.n_bytes // alignment) * alignment
        listed = b"".join(entries)
        yield listed + bytes(-(size + len(listed)) % alignment)
        for tensor in header.tensors:
            yield from _bytes(files[tensor.part], tensor.offset, tensor.n_bytes)
            yield bytes(-tensor.n_bytes % alignment)
    finally:
        for file in files:
            file.close()


def _entry(tensor: Tensor, offset: int) -> bytes:
    name = tensor.name.encode()
    shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return struct.pack("<Q", len(name)) + name + shape + struct.pack("<IQ", gguf_types.NUMBERS[tensor.type], offset)


def _bytes(file: BinaryIO, start: int, n: int) -> Iterator[bytes]:
    file.seek(start)
    while n > 0 and (chunk := file.read(min(n, _CHUNK))):
        n -= len(chunk)
        yield chunk
