"""The header of a GGUF file, read with suspicion: nothing is believed that the file's own size does not bear out.

Whatever else reads a model (llama.cpp, the gguf package) does so after `read`, which holds the file to the rules of
llama.cpp's own reader (ggml/src/gguf.cpp) and to sensible limits for a model's sizes. It allocates no more than the
file has bytes for, and no tensor is touched.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specee.models import (
    cache,
    damage,
    foreign_file,
    hyperparameters,
    local_file,
    model_kind,
    split_file,
    tokenizer_values,
)
from specee.models.errors import ModelError, NotAChatModelError
from specee.models.gguf_types import ARRAY, NEWEST, REMOVED, SCALARS, STRING, TENSORS, Array

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_VERSION = 99  # of what may come; beyond it is damage
MAX_NAME = 63  # GGML_MAX_NAME, without the zero at the end
MAX_KEY = 65535
MAX_TEXT = 16 << 20  # a chat template has kilobytes; the largest known value, an embedded tokenizer, some megabytes
MAX_DIMS = 4
MAX_VALUES = 10_000  # a model has some dozens, with sampling and many adapters some hundreds
FORKS, MAX_TYPE = 97, 400  # numbers of types of weights that others have added
DEFAULT_ALIGNMENT = 32
MAX_KEPT = 4096  # items; longer lists of numbers than, say, one for each layer stay in the file

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MIN_ENTRY = 8 + 1 + 4 + 1  # bytes of a key of one letter with a value of one byte
_MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8  # of a tensor's entry, with one dimension


@dataclass(frozen=True)
class Tensor:
    """A tensor as the header describes it. `shape` has the row length first; `offset` counts from the file's start.

    `part`: which of the header's files it is in.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int
    part: int = 0

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A header that holds together: `values` by key, and the tensors in the order of the file.

    Of a split model `path` is the first file, `files` are all of them, and `file_bytes` is the size of all.
    """

    path: Path
    values: dict[str, Any]
    tensors: tuple[Tensor, ...]
    file_bytes: int
    files: tuple[Path, ...]
    spans: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    """Where in the first file a key with its value begins and ends."""

    @property
    def architecture(self) -> str:
        """Such as `llama`."""
        return str(self.values["general.architecture"])

    def of_architecture(self, key: str) -> Any:
        """A value under the architecture's name, as `block_count`; None when it is not there."""
        return self.values.get(f"{self.architecture}.{key}")


class _Damage(Exception):  # noqa: N818 - becomes a ModelError, which knows the file's name
    pass


class _Unusable(_Damage):
    """A sound file that llama.cpp cannot read: another one is needed."""


def read(path: Path) -> Header:
    """Reads and checks the header of one file. Raises ModelError, in one line, for whatever is wrong with it."""
    try:
        with os.fdopen(local_file.open_to_read(path), "rb") as file:
            head = file.read(8)
            if head[:4] != MAGIC:
                what, to_do = foreign_file.describe(path, file)
                to_do = damage.advice(path) if cache.owner(path) else to_do
                raise foreign_file.unfinished(path) or ModelError("not a model", f"{path} {what}; {to_do}")
            if len(head) < 8:
                raise _Damage("it is cut off")
            if (told := foreign_file.still_arriving(path)) is not None:
                raise told
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header(path)
    except PermissionError as error:
        why = f"{path}: you may not read it (its owner can allow it: chmod +r)"
        raise ModelError("model not readable", why) from error
    except OSError as error:
        raise ModelError("model not readable", f"{path}: {error.strerror or error}") from error
    except _Unusable as error:
        raise ModelError("unusable model", f"{path}: {error}") from error
    except _Damage as error:
        damaged = ModelError("damaged model", f"{path}: {error}; {damage.advice(path)}")
        raise foreign_file.unfinished(path) or damaged from error


def read_model(path: Path) -> Header:
    """The header of a model in one file, or of all its parts: the first one's values, the tensors of all."""
    found = split_file.join(read(path), read)
    if not found.tensors:
        raise NotAChatModelError(path, "a vocabulary without weights", model_kind.CHAT_MODEL)
    return found


class _Reader:
    """Reads the bytes once, from front to back."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._end, self._at = data, len(data), 4

    def header(self, path: Path) -> Header:
        version = self._u32()
        if version not in VERSIONS:
            raise _wrong_version(version)
        n_tensors = self._count(_MIN_TENSOR, "tensors")
        n_values = self._count(_MIN_ENTRY, "values")
        if n_values > MAX_VALUES:
            raise _Damage(f"its header has {n_values} values; a model's has less than {MAX_VALUES}")
        values: dict[str, Any] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(n_values):
            start = self._at
            key = self._text(MAX_KEY, "a key")
            if not key or key in values:
                raise _Damage(f"the key {key[:80]!r} is there twice" if key else "a key is empty")
            values[key] = self._value(self._u32(), key)
            spans[key] = (start, self._at)
        model_kind.check_usable(path, values)
        if not split_file.number(values):  # the later parts of a split model do not have them
            if wrong := hyperparameters.wrong(values) or tokenizer_values.wrong(values, self._data):
                raise _Damage(wrong)
            if why := hyperparameters.unfinished(values):
                raise _Unusable(f"{why}; take another model")
        tensors = self._tensors(n_tensors, _alignment(values, self._end))
        return Header(path, values, tensors, self._end, (path,), spans)

    # ---- values ----------------------------------------------------------------------------------------------------

    def _value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self._text(MAX_TEXT, f"the value of {key[:80]!r}")
        if kind == ARRAY:
            return self._array(self._u32(), key)
        return self._scalar(kind, key)

    def _scalar(self, kind: int, key: str) -> Any:
        form = SCALARS.get(kind)
        if form is None:
            raise _Damage(f"the value of {key[:80]!r} is of no known type ({kind})")
        return form.unpack_from(self._data, self._skip(form.size))[0]

    def _array(self, kind: int, key: str) -> Array:
        if kind == STRING:
            length = self._count(8, "texts")
            start = self._at
            self._skip_texts(length)
            return Array(kind, length, None, start, self._at)
        form = SCALARS.get(kind)
        if form is None:
            raise _Damage(f"the list {key[:80]!r} is of no known type ({kind})")
        length = self._count(form.size, "numbers")
        at = self._skip(length * form.size)
        if length > MAX_KEPT:
            return Array(kind, length, None, at, self._at)
        items = tuple(form.unpack_from(self._data, at + i * form.size)[0] for i in range(length))
        return Array(kind, length, items, at, self._at)

    def _skip_texts(self, count: int) -> None:
        """The only long loop: a vocabulary has some hundred thousand texts."""
        at, data, length_at = self._at, self._data, _U64.unpack_from
        try:
            for _ in range(count):
                at += 8 + length_at(data, at)[0]
        except (struct.error, OverflowError):
            at = self._end + 1  # one text reached beyond the end of the file
        if at > self._end:
            raise _Damage("it is cut off or damaged within a list of texts")
        self._at = at

    def _text(self, limit: int, what: str) -> str:
        length = self._u64()
        if length > limit:
            raise _Damage(f"{what} has {length} bytes")
        at = self._skip(length)
        return self._data[at : at + length].decode("utf-8", "replace")

    # ---- tensors ---------------------------------------------------------------------------------------------------

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        """Tensors lie one after the other, each aligned, as llama.cpp wants them."""
        found = [self._tensor() for _ in range(count)]
        if len({tensor.name for tensor in found}) < count:
            raise _Damage("two tensors have the same name")
        start = at = _aligned(self._at, alignment)
        end = start + sum(_aligned(tensor.n_bytes, alignment) for tensor in found)
        placed = []
        for tensor in found:
            if tensor.offset != at - start:
                raise _Damage(f"the tensor {tensor.name!r} is not where it must be")
            if at + tensor.n_bytes > self._end:
                here = f"{self._end} of {end} bytes are here"
                raise _Damage(f"it is cut off or damaged ({here}): the tensor {tensor.name!r} reaches beyond its end")
            placed.append(Tensor(tensor.name, tensor.shape, tensor.type, at, tensor.n_bytes))
            at = _aligned(at + tensor.n_bytes, alignment)
        return tuple(placed)

    def _tensor(self) -> Tensor:
        """One entry; its offset still counts from the first tensor."""
        name = self._text(MAX_NAME, "the name of a tensor")
        n_dims = self._u32()
        if not 1 <= n_dims <= MAX_DIMS:
            raise _Damage(f"the tensor {name!r} has {n_dims} dimensions")
        shape = tuple(self._u64() for _ in range(n_dims))
        kind = self._u32()
        if kind not in TENSORS:
            raise _wrong_type(name, kind)
        type_name, block, block_bytes = TENSORS[kind]
        n = math.prod(shape)
        if n == 0 or shape[0] % block:
            raise _Damage(f"the tensor {name!r} cannot have the shape {shape} in {type_name}")
        return Tensor(name, shape, type_name, self._u64(), n // block * block_bytes)

    # ---- bytes -----------------------------------------------------------------------------------------------------

    def _skip(self, size: int) -> int:
        """Steps over `size` bytes, which must be there; returns where they begin."""
        at = self._at
        if size > self._end - at:
            raise _Damage("it is cut off or damaged in its header")
        self._at = at + size
        return at

    def _u32(self) -> int:
        return int(_U32.unpack_from(self._data, self._skip(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack_from(self._data, self._skip(8))[0])

    def _count(self, item_bytes: int, what: str) -> int:
        """A number of items that the rest of the file has room for."""
        count = self._u64()
        if count * item_bytes > self._end - self._at:
            raise _Damage(f"it is cut off or damaged: no room for {count} {what}")
        return count


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment


def _wrong_version(version: int) -> _Damage:
    if version == 1:
        return _Unusable(
            "GGUF of version 1 (August 2023), which llama.cpp reads no more; take a newer file of the model"
        )
    swapped = int.from_bytes(version.to_bytes(4, "big"), "little")
    if 1 <= swapped <= MAX_VERSION:
        return _Unusable(
            "GGUF for big-endian computers (its version says so); take the little-endian file of the model"
        )
    if VERSIONS[-1] < version <= MAX_VERSION:
        return _Unusable(f"GGUF of version {version}, which needs a newer specee-chat")
    return _Damage(f"its GGUF version {version} is not one of {VERSIONS}")


def _wrong_type(name: str, kind: int) -> _Damage:
    """Types of weights that llama.cpp does not have, or no more (enum ggml_type)."""
    if kind in REMOVED:
        return _Unusable(
            f"weights of the type {REMOVED[kind]}, which llama.cpp dropped; take a newer file of the model"
        )
    if NEWEST < kind < FORKS:
        return _Unusable(f"weights of a type ({kind}) that is newer than this specee-chat; take another quantization")
    if FORKS <= kind <= MAX_TYPE:
        why = f"weights of a type ({kind}) that llama.cpp does not have, but a program made from it (ik_llama.cpp)"
        return _Unusable(f"{why}; take another quantization")
    return _Damage(f"the tensor {name!r} is of no known type ({kind})")


def _alignment(values: dict[str, Any], file_bytes: int) -> int:
    alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment < file_bytes or alignment & (alignment - 1):
        raise _Damage(f"its alignment {str(alignment)[:80]!r} is not a power of two")
    return alignment
