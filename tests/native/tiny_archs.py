"""Tiny random models of every architecture of the pinned llama.cpp.

Which tensors a model has, llama.cpp says itself: it opens a header without tensors (`llama_model_init_from_user`) and
asks for the numbers of each tensor that its graph will want. They are written with the header into a GGUF file.

As a program, in a process of its own, because a header can end llama.cpp:
`python tests/native/tiny_archs.py [--vocabulary GGUF] FOLDER NAME...`; without names it makes all.
"""

from __future__ import annotations

import argparse
import ctypes
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import arch_headers
import gguf
import numpy as np
from gguf import GGUFValueType as Type

from specee.native import library

_KINDS = {bool: Type.BOOL, int: Type.UINT32, float: Type.FLOAT32, str: Type.STRING}
_OF_ALL = ("tokenizer.", "xielu.")  # keys without the architecture's name


class _Tensor(ctypes.Structure):
    """The first fields of ggml's."""

    _fields_ = (("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4))


class _GgufParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


_Asked = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Tensor), ctypes.c_void_p)


def write(
    path: Path, name: str, *, seed: int = 0, vocabulary: Path | None = None, values: dict[str, Any] | None = None
) -> Path:
    """The model `name` of `arch_headers.names()`; returns its path.

    `vocabulary`: a GGUF file whose vocabulary and template it gets. `values`: other values in its header.
    Raises ValueError where llama.cpp refuses the header.
    """
    arch, usual = arch_headers.header(name)
    wanted = usual | (values or {})
    header = path.with_suffix(".header")
    _write(header, arch, wanted, vocabulary, {})
    try:
        shapes = _shapes(header)
    finally:
        header.unlink()
    tied = name in arch_headers.TIED
    numbers = {
        tensor: _numbers(tensor, shape, seed, tied)
        for tensor, shape in shapes.items()
        if not (_rare(tensor) or (tied and tensor == "output.weight"))
        and not tensor.endswith(arch_headers.LEFT_OUT.get(name, ()))
    }
    return _write(path, arch, wanted, vocabulary, numbers)


def _write(
    path: Path, arch: str, values: dict[str, Any], vocabulary: Path | None, tensors: dict[str, np.ndarray]
) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("tiny")  # the name of a known model would change how its vocabulary is read
    n_vocab = _random_vocabulary(writer, values) if vocabulary is None else _vocabulary_of(vocabulary, writer)
    for key, value in (values | {"vocab_size": n_vocab}).items():
        if value is not None:
            _add(writer, key if key.startswith(_OF_ALL) else f"{arch}.{key}", value)
    for tensor, numbers in tensors.items():
        writer.add_tensor(tensor, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_key_value(key, value, Type.ARRAY, _KINDS[type(value[0])])
    else:
        writer.add_key_value(key, value, _KINDS[type(value)])


def _random_vocabulary(writer: gguf.GGUFWriter, values: dict[str, Any]) -> int:
    tokens = ["<unk>", "<s>", "</s>", *(chr(ord("!") + i) for i in range(90))]
    tokens += [f"x{i}" for i in range(len(tokens), values["vocab_size"])]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    return len(tokens)


def _vocabulary_of(source: Path, writer: gguf.GGUFWriter) -> int:
    values = _vocabulary_values(source)
    for key, (contents, kind, item) in values.items():
        writer.add_key_value(key, contents, kind, item)
    return len(values["tokenizer.ggml.tokens"][0])


@cache
def _vocabulary_values(source: Path) -> dict[str, tuple[Any, Type, Type | None]]:
    """Some seconds' work."""
    return {
        key: (field.contents(), field.types[0], field.types[-1] if field.types[0] == Type.ARRAY else None)
        for key, field in gguf.GGUFReader(source).fields.items()
        if key.startswith("tokenizer.")
    }


def _shapes(header: Path) -> dict[str, tuple[int, ...]]:
    """The tensors that llama.cpp wants for a header, the length of a row last."""
    lib = library.load()
    import llama_cpp.llama_cpp as llama

    llama.llama_backend_init()
    lib.gguf_init_from_file.restype = lib.llama_model_init_from_user.restype = ctypes.c_void_p
    lib.gguf_init_from_file.argtypes = [ctypes.c_char_p, _GgufParams]
    lib.gguf_free.argtypes = [ctypes.c_void_p]
    lib.llama_model_init_from_user.argtypes = [ctypes.c_void_p, _Asked, ctypes.c_void_p, llama.llama_model_params]
    lib.ggml_get_name.restype, lib.ggml_get_name.argtypes = ctypes.c_char_p, [ctypes.POINTER(_Tensor)]
    found: dict[str, tuple[int, ...]] = {}

    def asked(tensor: Any, _: object) -> None:
        n_dims = max((i + 1 for i, n in enumerate(tensor.contents.ne) if n > 1), default=1)
        found.setdefault(lib.ggml_get_name(tensor).decode(), tuple(tensor.contents.ne[:n_dims])[::-1])

    context = lib.gguf_init_from_file(str(header).encode(), _GgufParams(True, None))
    model = lib.llama_model_init_from_user(context, _Asked(asked), None, llama.llama_model_default_params())
    lib.gguf_free(context)
    if not model:
        raise ValueError(f"llama.cpp refuses the header {header}")
    llama.llama_model_free(model)
    return found


def _rare(tensor: str) -> bool:
    """What llama.cpp would take of most models, and few have."""
    if tensor.startswith("rope_factors_"):  # beside rope_freqs: one kind is enough
        return True
    of_small_floats = (".scale", ".input_scale")
    return tensor.endswith(of_small_floats) and not tensor.endswith("ffn_gate_inp.scale")


def _numbers(tensor: str, shape: tuple[int, ...], seed: int, tied: bool) -> np.ndarray:
    """Weights large enough that every layer matters, and small enough that none drowns the others."""
    numbers = np.random.default_rng([seed, zlib.crc32(tensor.encode())]).standard_normal(shape)
    if "ssm_a" in tensor:  # a state decays
        numbers = -np.abs(numbers) - 0.1
    elif "rope_freqs" in tensor:
        numbers = 1 + np.abs(numbers)
    elif "norm" in tensor and tensor.endswith(".weight"):
        numbers = 1 + 0.1 * numbers
    elif len(shape) == 1 or tensor.endswith(".bias"):
        numbers *= 0.1
    else:
        large = 4.0 if tensor == "output.weight" or not tied else 1.0  # tied, every token would follow itself
        numbers *= (large if tensor in ("token_embd.weight", "output.weight") else 2.0) / np.sqrt(shape[-1])
    return numbers.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=Path, help="take vocabulary and template of this GGUF file")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    wanted = parser.parse_args()
    for name in wanted.names or arch_headers.names():
        print(name, flush=True)  # the last one is the one that a crash belongs to
        write(wanted.folder / f"{name}.gguf", name, vocabulary=wanted.vocabulary)
        print("true", flush=True)


if __name__ == "__main__":
    main()
