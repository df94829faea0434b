"""A trained head as a GGUF file that llama.cpp reads: the architecture `eagle3`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

from specee.predictors.types import Floats, Tokens

ARCHITECTURE = "eagle3"
TARGET_KEY, ACCEPTANCE_KEY, TOKENS_KEY, MADE_BY_KEY = (
    f"specee.{name}" for name in ("target_sha256", "acceptance", "training_tokens", "made_by")
)
_TOKENIZER = "tokenizer.ggml."
_BLOCK = ("attn_", "ffn_")
QUANTIZED = {"q4_0": gguf.GGMLQuantizationType.Q4_0, "q8_0": gguf.GGMLQuantizationType.Q8_0}


@dataclass(frozen=True, slots=True)
class HeadInfo:
    """What a head's file says of it besides its weights."""

    name: str
    target_sha256: str
    layers: tuple[int, ...]
    """Of the model: those that it reads."""
    width: int
    """The model's, and the head's own."""
    n_head: int
    n_head_kv: int
    feed_forward: int
    n_ctx: int
    norm_eps: float
    rope_base: float
    acceptance: tuple[float, ...]
    """Measured on prompts unlike the training data: of the first draft, of the second after a right first one, .."""
    training_tokens: int
    made_by: str


def rounded(weights: Mapping[str, Floats], kind: str) -> dict[str, Floats]:
    """The weights as the file will have them: matrices through the quantized type and back."""
    wanted = QUANTIZED[kind]
    return {
        name: dequantize(quantize(w, wanted), wanted).reshape(w.shape).astype(np.float32) if w.ndim == 2 else w
        for name, w in weights.items()
    }


def write(path: Path, info: HeadInfo, weights: Mapping[str, Floats], known: Tokens, kind: str, target: Path) -> None:
    """`known` [n]: the model's tokens that the rows of the head's LM head stand for. `target`: the model's file.

    Of the tokenizer the file has what tells that it is the model's: the pieces that merges are made of are left out.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(part, info, weights, known, kind, target)
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


def _write(path: Path, info: HeadInfo, weights: Mapping[str, Floats], known: Tokens, kind: str, target: Path) -> None:
    w = gguf.GGUFWriter(path, ARCHITECTURE)
    w.add_name(info.name)
    w.add_context_length(info.n_ctx)
    w.add_embedding_length(info.width)
    w.add_block_count(1)
    w.add_feed_forward_length(info.feed_forward)
    w.add_head_count(info.n_head)
    w.add_head_count_kv(info.n_head_kv)
    w.add_layer_norm_rms_eps(info.norm_eps)
    w.add_rope_dimension_count(info.width // info.n_head)
    w.add_rope_freq_base(info.rope_base)
    w.add_array(f"{ARCHITECTURE}.target_layers", list(info.layers))
    w.add_uint32(f"{ARCHITECTURE}.target_hidden_size", info.width)
    w.add_bool(f"{ARCHITECTURE}.norm_before_fc", True)
    w.add_string(TARGET_KEY, info.target_sha256)
    w.add_array(ACCEPTANCE_KEY, [float(a) for a in info.acceptance])
    w.add_uint32(TOKENS_KEY, info.training_tokens)
    w.add_string(MADE_BY_KEY, info.made_by)
    _copy_tokenizer(w, target)
    for name, values in weights.items():
        stored = f"blk.0.{name}.weight" if name.startswith(_BLOCK) else f"{name.replace('enc_', 'enc.')}.weight"
        if values.ndim == 2:
            w.add_tensor(stored, quantize(values, QUANTIZED[kind]), raw_dtype=QUANTIZED[kind])
        else:
            w.add_tensor(stored, values.astype(np.float32))
    w.add_tensor("d2t", known.astype(np.int64))
    try:
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
    finally:
        w.close()


def _copy_tokenizer(w: gguf.GGUFWriter, target: Path) -> None:
    for name, field in gguf.GGUFReader(target).fields.items():
        if not name.startswith(_TOKENIZER):
            continue
        value: Any = field.contents()
        if name == f"{_TOKENIZER}merges":
            value = value[:1]  # llama.cpp wants the list, drafts never use it
        kind = field.types[0]
        w.add_key_value(name, value, kind, field.types[1] if kind is gguf.GGUFValueType.ARRAY else None)
