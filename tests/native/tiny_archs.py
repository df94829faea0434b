"""Tiny random models of every architecture of the pinned llama.cpp.

Which tensors a model has, llama.cpp says itself: it opens a header without tensors (llama_model_init_from_user) and
asks for the numbers of each tensor that its graph will want. They are written with the header into a GGUF file.

As a program, in a process of its own, because a header can end llama.cpp: `python tiny_archs.py FOLDER NAME...`.
"""

from __future__ import annotations

import ctypes
import sys
import zlib
from pathlib import Path
from typing import Any

import arch_headers
import gguf
import numpy as np
from gguf import GGUFValueType as Type

from specee.native import library

N_VOCAB = 128
_SKIPPED = ("rope_factors_long.weight", "rope_factors_short.weight")  # beside rope_freqs: one kind is enough


class _Tensor(ctypes.Structure):
    """The first fields of ggml's."""

    _fields_ = (("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4))


_ASKED = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Tensor), ctypes.c_void_p)


class _GgufParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


def write(path: Path, name: str, *, seed: int = 0, vocabulary: Path | None = None) -> Path:
    """The model `name` of `arch_headers.MODELS`. `vocabulary`: a GGUF file whose vocabulary and template it gets.

    Raises ValueError where llama.cpp refuses the header.
    """
    header = path.with_suffix(".header")
    _writer(header, name, vocabulary, {})
    try:
        shapes = _shapes(header)
    finally:
        header.unlink()
    tied = name in arch_headers.TIED
    kept = {n: s for n, s in shapes.items() if n not in _SKIPPED and not (tied and n == "output.weight")}
    _writer(path, name, vocabulary, {tensor: _numbers(tensor, shape, seed) for tensor, shape in kept.items()})
    return path


def _writer(path: Path, name: str, vocabulary: Path | None, tensors: dict[str, np.ndarray]) -> None:
    arch, values = arch_headers.MODELS[name]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"tiny-{name}")
    tokens = _vocabulary(writer, vocabulary)
    for key, value in {"vocab_size": tokens, **values}.items():
        if value is not None:
            _add(writer, key if key.startswith(("tokenizer.", "xielu.")) else f"{arch}.{key}", value)
    for tensor, numbers in tensors.items():
        writer.add_tensor(tensor, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    item = value[0] if isinstance(value, list) else value
    kinds = {bool: Type.BOOL, int: Type.UINT32, float: Type.FLOAT32, str: Type.STRING}
    if isinstance(value, list):
        writer.add_key_value(key, value, Type.ARRAY, kinds[type(item)])
    else:
        writer.add_key_value(key, value, kinds[type(item)])


def _vocabulary(writer: gguf.GGUFWriter, source: Path | None) -> int:
    """Writes a vocabulary; returns how many tokens it has."""
    if source is not None:
        fields = gguf.GGUFReader(source).fields
        for key, field in fields.items():
            if key.startswith("tokenizer."):
                item = field.types[-1] if field.types[0] == Type.ARRAY else None
                writer.add_key_value(key, field.contents(), field.types[0], item)
        return len(fields["tokenizer.ggml.tokens"].data)
    tokens = ["<unk>", "<s>", "</s>", *(chr(ord("!") + i) for i in range(90))]
    tokens += [f"x{i}" for i in range(len(tokens), N_VOCAB)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * N_VOCAB)
    writer.add_token_types([2, 3, 3] + [1] * (N_VOCAB - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    return N_VOCAB


def _shapes(header: Path) -> dict[str, tuple[int, ...]]:
    """The tensors that llama.cpp wants for a header, outermost dimension first."""
    lib = library.load()
    import llama_cpp.llama_cpp as llama

    llama.llama_backend_init()
    lib.gguf_init_from_file.restype = lib.llama_model_init_from_user.restype = ctypes.c_void_p
    lib.gguf_init_from_file.argtypes = [ctypes.c_char_p, _GgufParams]
    lib.llama_model_init_from_user.argtypes = [ctypes.c_void_p, _ASKED, ctypes.c_void_p, llama.llama_model_params]
    lib.ggml_get_name.restype, lib.ggml_get_name.argtypes = ctypes.c_char_p, [ctypes.POINTER(_Tensor)]
    lib.gguf_free.argtypes = [ctypes.c_void_p]
    found: dict[str, tuple[int, ...]] = {}

    def asked(tensor: Any, _: object) -> None:
        shape = tuple(reversed(tensor.contents.ne))
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
        assert tensor.contents.type == 0, "float32 is what llama.cpp takes when nothing is said"
        found.setdefault(lib.ggml_get_name(tensor).decode(), shape)

    context = lib.gguf_init_from_file(str(header).encode(), _GgufParams(True, None))
    model = lib.llama_model_init_from_user(context, _ASKED(asked), None, llama.llama_model_default_params())
    lib.gguf_free(context)
    if not model:
        raise ValueError(f"llama.cpp refuses the header {header}")
    llama.llama_model_free(model)
    return found


def _numbers(tensor: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Weights large enough that every layer matters, and small enough that none drowns the others."""
    rng = np.random.default_rng([seed, zlib.crc32(tensor.encode())])
    numbers = rng.standard_normal(shape)
    if "ssm_a" in tensor:  # a state decays
        numbers = -np.abs(numbers) - 0.1
    elif "rope_freqs" in tensor:
        numbers = 1 + np.abs(numbers)
    elif "norm" in tensor and tensor.endswith(".weight"):
        numbers = 1 + 0.1 * numbers
    elif len(shape) == 1 or tensor.endswith(".bias"):
        numbers = 0.1 * numbers
    else:
        numbers *= (4.0 if tensor in ("token_embd.weight", "output.weight") else 2.0) / np.sqrt(shape[-1])
    return numbers.astype(np.float32)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for wanted in sys.argv[2:]:
        print(wanted, flush=True)
        write(folder / f"{wanted}.gguf", wanted)
