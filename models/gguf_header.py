"""The header of a GGUF file, read with suspicion: nothing is believed that the file's own size does not bear out.

Whatever else reads a model (llama.cpp, the gguf package) does so after `read`, which holds the file to the rules of
llama.cpp's own reader (ggml/src/gguf.cpp) and to sensible limits for a model's sizes. It allocates no more than the
file has bytes for, and no tensor is touched.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specee.models import (
    architectures,
    cache,
    damage,
    foreign_file,
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
FORKS, MAX_TYPE = 97, 400  # numbers of types of weights that others have added
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_HYPERPARAMETER = 1 << 24
DEFAULT_ALIGNMENT = 32
MAX_KEPT = 4096  # items; longer lists of numbers than, say, one for each layer stay in the file

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MIN_ENTRY = 8 + 1 + 4 + 1  # bytes of a key of one letter with a value of one byte
_MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8  # of a tensor's entry, with one dimension
_NOT_ROTATED = architectures.RECURRENT | {  # whose Q and K stay as they are, in all files or in some
    *("baichuan", "bloom", "glm5-next", "gpt2", "granitehybrid", "jais", "jamba", "kimi-k3", "mpt", "nemotron_h"),
    *("nemotron_h_moe", "refact", "starcoder"),
}
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_POSITIVE = (
    "block_count",
    "embedding_length",
    "attention.key_length",
    "attention.value_length",
    "vocab_size",
    # what llama.cpp divides by
    "experts_per_group",
    "full_attention_interval",
    "hrm.h_cycles",
    "hrm.l_cycles",
    "hrm.layers_per_stack",
    "interleave_moe_layer_step",
    "kda.head_dim",
    "shortconv.l_cache",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "wkv.head_size",
)
# 0 where layers do without, or in a file that does not say it
_MOSTLY_POSITIVE = ("context_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv")
# what we read besides; 0 where the model has none
_COUNTS = ("attention.sliding_window", "nextn_predict_layers", "target_hidden_size", "target_layers")
_TEXTS = ("general.name", "tokenizer.ggml.model")


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
        values: dict[str, Any] = {}
        for _ in range(n_values):
            key = self._text(MAX_KEY, "a key")
            if not key or key in values:
                raise _Damage(f"the key {key[:80]!r} is there twice" if key else "a key is empty")
            values[key] = self._value(self._u32(), key)
        model_kind.check_usable(path, values)
        if not split_file.number(values):  # the later parts of a split model do not have them
            _check_values(values)
            if (wrong := tokenizer_values.wrong(values, self._data)) is not None:
                raise _Damage(wrong)
        tensors = self._tensors(n_tensors, _alignment(values, self._end))
        return Header(path, values, tensors, self._end, (path,))

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


def _numbers(value: Any) -> tuple[Any, ...]:
    if isinstance(value, Array):
        return ("a list of texts or a long one",) if value.items is None else value.items
    return () if value is None else (value,)


def _check_values(values: dict[str, Any]) -> None:
    """What is multiplied or allocated by before llama.cpp compares it with the tensors must be sensible."""
    arch = values.get("general.architecture")
    if not isinstance(arch, str) or not _ARCHITECTURE.fullmatch(arch):
        raise _Damage("it names no architecture")
    for key in _TEXTS:
        if not isinstance(values.get(key, ""), str):
            raise _Damage(f"{key} is no text")
    for name in (*_POSITIVE, *_MOSTLY_POSITIVE, *_COUNTS):
        value = values.get(f"{arch}.{name}")
        limit = MAX_LAYERS if name == "block_count" else MAX_HYPERPARAMETER
        for number in _numbers(value):
            if type(number) is not int or not _lowest(name, arch, values) <= number <= limit:
                raise _Damage(f"{name} cannot be {str(number)[:80]!r}")
    if _never_ends(arch, values):
        why = "no dimension of its heads is rotated, which llama.cpp as it is built in here never finishes"
        raise _Unusable(f"{why}; take another model")
    for key, value in values.items():
        if not key.startswith(f"{arch}.") or not isinstance(value, float):
            continue
        if not math.isfinite(value) or (key.endswith("epsilon") and value < 0):
            raise _Damage(f"{key[len(arch) + 1 :][:80]} cannot be {value}")


def _lowest(name: str, arch: str, values: dict[str, Any]) -> int:
    """The least that a hyperparameter can be: 0 in single layers, and in models that have no such part."""
    if name in _POSITIVE:
        return 1 if not isinstance(values.get(f"{arch}.{name}"), Array) else 0
    if name in _COUNTS or isinstance(values.get(f"{arch}.{name}"), Array) or arch in architectures.RECURRENT:
        return 0
    without = name == "feed_forward_length" and (arch in architectures.HYBRID or values.get(f"{arch}.expert_count"))
    return 0 if name == "context_length" or without else 1


def _never_ends(arch: str, values: dict[str, Any]) -> bool:
    """Whether llama.cpp would rotate 0 dimensions of Q and K (ggml_compute_forward_rope_flt steps back by them).

    They are as many as the header says, or as a head of the first layer has.
    """
    if arch in _NOT_ROTATED:
        return False
    heads = values.get(f"{arch}.attention.head_count")
    first = heads.items[0] if isinstance(heads, Array) and heads.items else heads
    return first == 0 or values.get(f"{arch}.rope.dimension_count") == 0
