"""Q8_0 blocks of llama.cpp: 32 values as int8 with one float16 scale, 34 bytes."""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from specee.predictors.types import Floats

Blocks = NDArray[np.uint8]  # [rows, columns / 32 * 34]

BLOCK = 32
BLOCK_BYTES = 34


def to_q8(values: Floats) -> Blocks:
    """float32 [rows, columns] -> [rows, columns / 32 * 34]; columns must be a multiple of 32."""
    blocks: Blocks = quantize(np.ascontiguousarray(values, np.float32), GGMLQuantizationType.Q8_0)
    return np.ascontiguousarray(blocks.reshape(values.shape[0], -1))


def from_q8(blocks: Blocks) -> Floats:
    """The values that blocks stand for: float32 [rows, columns]."""
    values: Floats = dequantize(blocks, GGMLQuantizationType.Q8_0).astype(np.float32)
    return values.reshape(blocks.shape[0], -1)


def columns_of(blocks: Blocks) -> int:
    """Columns that a row of blocks holds."""
    return int(blocks.shape[1]) // BLOCK_BYTES * BLOCK
