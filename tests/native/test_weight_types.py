"""What is known of ggml's types of weights: their sizes, and which have a kernel for several rows at once."""

from __future__ import annotations

import ctypes

import ggml_kernels as kernels
import llama_cpp
import numpy as np
import pytest

from specee.models import gguf_types
from specee.native import library
from specee.native.errors import NativeError


def test_all_types_of_ggml_are_known_with_their_sizes() -> None:
    base = kernels.base_library()
    base.ggml_type_name.restype = ctypes.c_char_p
    base.ggml_type_size.restype = ctypes.c_size_t
    base.ggml_blck_size.restype = ctypes.c_int64
    of_ggml = {}
    for number in range(max(gguf_types.TENSORS) + 1):
        if base.ggml_blck_size(number):  # not one that was removed
            of_ggml[number] = (base.ggml_type_name(number), base.ggml_blck_size(number), base.ggml_type_size(number))
    known = {n: (name.lower().encode(), *sizes) for n, (name, *sizes) in gguf_types.TENSORS.items()}
    assert known == {n: (name.lower(), *sizes) for n, (name, *sizes) in of_ggml.items()}
    assert max(gguf_types.TENSORS) + 1 == llama_cpp.GGML_TYPE_COUNT


@pytest.mark.parametrize("name", kernels.TYPES)
def test_types_with_a_kernel(name: str) -> None:
    weights = kernels.quantize(name, np.ones((8, 256), np.float32))
    rows = kernels.quantize_rows(name, np.ones((2, 256), np.float32))
    try:
        kernels.run(kernels.product(name, weights, rows, 256, np.zeros((2, 8), np.float32)))
        in_rows = True
    except NativeError:
        in_rows = False
    has = library.has_kernel(kernels.TYPES[name], 256, 8)
    assert has or not in_rows or name == "Q2_K"  # which ggml repacks where it has AVX512
    if has:
        assert library.has_kernel(kernels.TYPES[name], 256, 4096)


@pytest.mark.parametrize("name", ["F32", "IQ2_XS", "IQ3_S", "TQ1_0", "NVFP4", "Q1_0"])
def test_types_without_a_kernel(name: str) -> None:
    assert not library.has_kernel(gguf_types.NUMBERS[name], 4096, 4096)


@pytest.mark.parametrize("type_id,n_in,n_out", [(-1, 256, 256), (1 << 20, 256, 256), (8, 0, 256), (8, 256, -1)])
def test_what_is_no_matrix_has_none(type_id: int, n_in: int, n_out: int) -> None:
    assert not library.has_kernel(type_id, n_in, n_out)
