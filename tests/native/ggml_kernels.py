"""Matrix kernels, ours and ggml's, called one by one: for tests and measurements only.

Ours: native/src/small_batch. Weights and activations are quantized blocks as raw bytes.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.native import library
from specee.native.errors import NativeError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

TYPES = {
    "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
    "IQ4_NL": 20, "IQ4_XS": 23, "MXFP4": 39,
}  # fmt: skip
_IDS = {**TYPES, "F16": 1, "BF16": 30}
IN_ROWS = tuple(name for name in TYPES if name not in ("IQ4_NL", "MXFP4"))
"""Types with a kernel of ours for rows as in the file."""
REPACKED = {
    "Q4_0": "ggml_gemv_q4_0_8x8_q8_0",
    "Q2_K": "ggml_gemv_q2_K_8x8_q8_K",
    "Q4_K": "ggml_gemv_q4_K_8x8_q8_K",
    "IQ4_NL": "ggml_gemv_iq4_nl_8x8_q8_0",
    "MXFP4": "ggml_gemv_mxfp4_8x8_q8_0",
}
"""Types that ggml repacks on x86 (but see `is_repacked`), and its kernel for one row of these groups."""
IN_GROUPS = tuple(name for name in REPACKED if name != "Q2_K")
"""Those with a kernel of ours for such groups."""
ROWS, REPACKED_8, COLUMNS = 0, 0x88, 0x105
N_MAX = 8


class Product(ctypes.Structure):
    """`struct specee_product` of src/small_batch/small_batch.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("layout", ctypes.c_int),
        ("n_in", ctypes.c_int64),
        ("weights", ctypes.c_void_p),
        ("weights_stride", ctypes.c_size_t),
        ("n_out", ctypes.c_int64),
        ("rows", ctypes.c_void_p),
        ("rows_stride", ctypes.c_size_t),
        ("n_rows", ctypes.c_int64),
        ("out", ctypes.c_void_p),
        ("out_stride", ctypes.c_size_t),
    )


_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_FROM_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_VEC_DOT = ctypes.CFUNCTYPE(
    None, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
    ctypes.c_size_t, ctypes.c_int,
)  # fmt: skip


class _BaseTraits(ctypes.Structure):
    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _TO_FLOAT),
    )


class _Traits(ctypes.Structure):
    _fields_ = (
        ("from_float", _FROM_FLOAT),
        ("vec_dot", _VEC_DOT),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    )


@cache
def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """ggml-base and ggml-cpu of our build."""
    folder = library.loaded().directory
    suffix = ".dylib" if (folder / "libllama.dylib").is_file() else ".so"
    base, cpu = (ctypes.CDLL(str(folder / f"lib{name}{suffix}")) for name in ("ggml-base", "ggml-cpu"))
    base.ggml_row_size.restype = ctypes.c_size_t
    base.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    base.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    ]  # fmt: skip
    base.ggml_get_type_traits.restype = ctypes.POINTER(_BaseTraits)
    base.ggml_get_type_traits.argtypes = [ctypes.c_int]
    cpu.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_Traits)
    cpu.ggml_get_type_traits_cpu.argtypes = [ctypes.c_int]
    base.quantize_row_q8_K_ref.restype = None
    base.quantize_row_q8_K_ref.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    cpu.specee_pack_columns.restype = ctypes.c_bool
    cpu.specee_pack_columns.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    cpu.ggml_cpu_init()
    return base, cpu


@cache
def _ours() -> ctypes.CDLL:
    """Where our kernels are: in ggml-cpu, or in what was loaded before it (vnni_stand_in.py)."""
    _, cpu = _libraries()
    first = ctypes.CDLL(None)
    ours = first if hasattr(first, "specee_small_batch") else cpu
    ours.specee_small_batch.restype = ctypes.c_bool
    ours.specee_small_batch.argtypes = [ctypes.POINTER(Product)]
    return ours


def base_library() -> ctypes.CDLL:
    """ggml-base of our build."""
    return _libraries()[0]


def quantize(name: str, weights: Floats) -> Bytes:
    """[n_out, n_in] -> rows of blocks."""
    base, _ = _libraries()
    n_out, n_in = weights.shape
    out = np.zeros((n_out, base.ggml_row_size(_IDS[name], n_in)), np.uint8)
    weights = np.ascontiguousarray(weights, np.float32)
    base.ggml_quantize_chunk(_IDS[name], weights.ctypes.data, out.ctypes.data, 0, n_out, n_in, None)
    return out


def dequantize(name: str, weights: Bytes, n_in: int) -> Floats:
    """Rows of blocks -> the weights that they stand for, [n_out, n_in]"""
    to_float = _libraries()[0].ggml_get_type_traits(_IDS[name]).contents.to_float
    out = np.zeros((len(weights), n_in), np.float32)
    for row, floats in zip(np.ascontiguousarray(weights), out, strict=True):
        to_float(row.ctypes.data, floats.ctypes.data, n_in)
    return out


def quantize_rows(name: str, rows: Floats) -> Bytes:
    """Activations [n, n_in] as the kernels of weight type `name` want them."""
    base, cpu = _libraries()
    kind = cpu.ggml_get_type_traits_cpu(_IDS[name]).contents.vec_dot_type
    from_float = cpu.ggml_get_type_traits_cpu(kind).contents.from_float
    out = np.zeros((len(rows), base.ggml_row_size(kind, rows.shape[1])), np.uint8)
    rows = np.ascontiguousarray(rows, np.float32)
    for row, quantized in zip(rows, out, strict=True):
        from_float(row.ctypes.data, quantized.ctypes.data, rows.shape[1])
    return out


def quantize_k_row_by_ggml(row: Floats) -> Bytes:
    """One row of activations for the K types, by ggml's scalar code."""
    out = np.zeros(len(row) // 256 * 292, np.uint8)
    _libraries()[0].quantize_row_q8_K_ref(row.ctypes.data, out.ctypes.data, len(row))
    return out


def product(name: str, weights: Bytes, rows: Bytes, n_in: int, out: Floats, layout: int = ROWS) -> Product:
    """The argument of our kernels; the arrays must outlive it. out [n, n_out]"""
    return Product(
        _IDS[name], layout, n_in, weights.ctypes.data, weights.strides[0], len(weights), rows.ctypes.data,
        rows.strides[0], len(rows), out.ctypes.data, out.strides[0] // 4,
    )  # fmt: skip


def run(p: Product) -> None:
    """Our kernel. Raises NativeError when there is none for the product here."""
    if not _ours().specee_small_batch(ctypes.byref(p)):
        raise NativeError("No kernel", f"type {p.type}, layout {p.layout}, {p.n_rows} rows")


def one_by_one(name: str, weights: Bytes, rows: Bytes, n_in: int) -> Floats:
    """ggml's kernel for one row, for each row and weight row: [n, n_out]"""
    vec_dot = _libraries()[1].ggml_get_type_traits_cpu(_IDS[name]).contents.vec_dot
    out = np.zeros((len(rows), len(weights)), np.float32)
    for i, row in enumerate(rows):
        for j, weight in enumerate(weights):
            at = out.ctypes.data + i * out.strides[0] + j * out.strides[1]
            vec_dot(n_in, at, 0, weight.ctypes.data, 0, row.ctypes.data, 0, 1)
    return out


def is_repacked(name: str) -> bool:
    """Whether ggml repacks this type where it is compiled as it is: Q2_K for AVX512 alone."""
    return name in REPACKED and (name != "Q2_K" or bool(_libraries()[1].ggml_cpu_has_avx512()))


def gemv(name: str, groups: Bytes, rows: Bytes, n_in: int) -> Floats:
    """ggml's kernel for one row and repacked weights: [n, n_out]"""
    call: Any = getattr(_libraries()[1], REPACKED[name])
    out = np.zeros((len(rows), len(groups)), np.float32)
    for i, row in enumerate(rows):
        call(
            ctypes.c_int(n_in), ctypes.c_void_p(out[i].ctypes.data), ctypes.c_size_t(len(groups)),
            ctypes.c_void_p(groups.ctypes.data), ctypes.c_void_p(row.ctypes.data), ctypes.c_int(1),
            ctypes.c_int(len(groups)),
        )  # fmt: skip
    return out


def columns(name: str, weights: Bytes, n_in: int) -> Bytes:
    """Rows -> tiles of our own layout (src/small_batch/columns.h): same shape as `weights`.

    Raises NativeError when there are none for this type, number of rows or CPU.
    """
    memory = np.zeros(weights.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64  # as buffers are aligned
    tiles: Bytes = memory[start : start + weights.nbytes].reshape(weights.shape)
    weights = np.ascontiguousarray(weights)
    if not _libraries()[1].specee_pack_columns(_IDS[name], weights.ctypes.data, n_in, len(weights), tiles.ctypes.data):
        raise NativeError("No columns", f"type {name}, {len(weights)} rows")
    return tiles


def repack(name: str, weights: Bytes, n_in: int) -> Bytes:
    """Groups of eight rows, interleaved as ggml repacks them: same shape as `weights`."""
    block = {"Q4_0": 18, "Q2_K": 84, "Q4_K": 144, "IQ4_NL": 18, "MXFP4": 17}[name]
    n_out, n_blocks = len(weights), weights.shape[1] // block
    eight = weights.reshape(n_out // 8, 8, n_blocks, block).transpose(0, 2, 1, 3)  # [groups, blocks, 8, bytes]

    def in_turns(part: Bytes, n: int) -> Bytes:
        """n bytes of each row in turn."""
        turns = part.reshape(*part.shape[:3], -1, n).transpose(0, 1, 3, 2, 4)
        return turns.reshape(*part.shape[:2], -1)

    def one_by_one(part: Bytes) -> Bytes:
        return in_turns(part, part.shape[-1])

    if name == "Q4_K":
        scales = _scales(eight[..., 4:16]).reshape(*eight.shape[:2], -1)
        parts = [one_by_one(eight[..., :2]), one_by_one(eight[..., 2:4]), scales, in_turns(eight[..., 16:], 8)]
    elif name == "Q2_K":
        parts = [one_by_one(eight[..., 80:82]), one_by_one(eight[..., 82:]), in_turns(eight[..., :16], 2)]
        parts.append(in_turns(eight[..., 16:80], 8))
    else:
        head = block - 16
        nibbles = in_turns(eight[..., head:], 8)
        parts = [one_by_one(eight[..., :head]), nibbles ^ 0x88 if name == "Q4_0" else nibbles]
    return np.ascontiguousarray(np.concatenate(parts, axis=-1).reshape(weights.shape))


def _scales(packed: Bytes) -> Bytes:
    """12 bytes for each row's eight sub-blocks -> 12 bytes for each sub-block's eight rows: [.., 8, 12] both."""
    low, high, rest = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scale = np.concatenate([low & 63, (low >> 6 << 4) | (rest & 15)], axis=-1)  # [.., row, sub-block]
    least = np.concatenate([high & 63, (high >> 6 << 4) | (rest >> 4)], axis=-1)
    s, m = np.swapaxes(scale, -1, -2), np.swapaxes(least, -1, -2)  # [.., sub-block, row]
    first = s[..., :4] | (s[..., 4:] >> 4 << 6)
    second = m[..., :4] | (m[..., 4:] >> 4 << 6)
    third = (s[..., 4:] & 15) | (m[..., 4:] << 4)
    return np.concatenate([first, second, third], axis=-1)
