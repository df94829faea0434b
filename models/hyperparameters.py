"""The numbers that a model's header gives for its parts, held against each other.

What llama.cpp multiplies, divides or allocates by before it compares it with the tensors must be sensible; for some of
it ggml would end the process.
"""

from __future__ import annotations

import math
import re
from typing import Any

from specee.models import architectures
from specee.models.gguf_types import Array

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_HYPERPARAMETER = 1 << 24

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
_WIDTH = "embedding_length"
_TEXTS = ("general.name", "tokenizer.ggml.model")
_NOT_ROTATED = architectures.RECURRENT | {  # whose Q and K stay as they are, in all files or in some
    *("baichuan", "bloom", "glm5-next", "gpt2", "granitehybrid", "jais", "jamba", "kimi-k3", "mpt", "nemotron_h"),
    *("nemotron_h_moe", "refact", "starcoder"),
}


def wrong(values: dict[str, Any]) -> str | None:
    """What cannot be, in words; None when all goes together."""
    arch = values.get("general.architecture")
    if not isinstance(arch, str) or not _ARCHITECTURE.fullmatch(arch):
        return "it names no architecture"
    for key in _TEXTS:
        if not isinstance(values.get(key, ""), str):
            return f"{key} is no text"
    for name in (*_POSITIVE, *_MOSTLY_POSITIVE, *_COUNTS):
        value = values.get(f"{arch}.{name}")
        limit = MAX_LAYERS if name == "block_count" else MAX_HYPERPARAMETER
        for number in _numbers(value):
            if type(number) is not int or not _lowest(name, arch, values) <= number <= limit:
                return _cannot_be(name, number)
    for key, value in values.items():
        if not key.startswith(f"{arch}.") or not isinstance(value, float):
            continue
        if not math.isfinite(value) or (key.endswith("epsilon") and value < 0):
            return f"{key[len(arch) + 1 :][:80]} cannot be {value}"
    return _wrong_heads(arch, values)


def unfinished(values: dict[str, Any]) -> str | None:
    """Why llama.cpp would compute without end, in words.

    It rotates as many dimensions of Q and K as the header says, or as a head of the first layer has; of 0 it makes no
    progress (ggml_compute_forward_rope_flt).
    """
    arch = values["general.architecture"]
    if arch in _NOT_ROTATED:
        return None
    if _first(values.get(f"{arch}.attention.head_count")) == 0 or values.get(f"{arch}.rope.dimension_count") == 0:
        return "no dimension of its heads is rotated, which llama.cpp as it is built in here never finishes"
    return None


def _cannot_be(name: str, value: object) -> str:
    return f"{name} cannot be {str(value)[:80]!r}"


def _numbers(value: Any) -> tuple[Any, ...]:
    if isinstance(value, Array):
        return ("a list of texts or a long one",) if value.items is None else value.items
    return () if value is None else (value,)


def _first(value: Any) -> Any:
    return value.items[0] if isinstance(value, Array) and value.items else value


def _lowest(name: str, arch: str, values: dict[str, Any]) -> int:
    """The least that a hyperparameter can be: 0 in single layers, and in models that have no such part."""
    if name in _COUNTS or isinstance(values.get(f"{arch}.{name}"), Array):
        return 0
    if name in _POSITIVE:
        return 1
    without = name == "feed_forward_length" and (arch in architectures.HYBRID or values.get(f"{arch}.expert_count"))
    return 0 if arch in architectures.RECURRENT or name == "context_length" or without else 1


def _wrong_heads(arch: str, values: dict[str, Any]) -> str | None:
    def number(name: str) -> int | None:
        found = _first(values.get(f"{arch}.{name}"))
        return found if type(found) is int else None

    heads, heads_kv, width = (number(name) for name in ("attention.head_count", "attention.head_count_kv", _WIDTH))
    keys, plain_keys, rank = (number(f"attention.{name}") for name in ("key_length", "key_length_mla", "kv_lora_rank"))
    wkv, rotated = number("wkv.head_size"), number("rope.dimension_count")
    if wkv and width and width % wkv:
        return _cannot_be("wkv.head_size", wkv)
    if arch in architectures.RECURRENT:
        return None
    if heads and heads_kv and heads % heads_kv:
        return _cannot_be("attention.head_count_kv", heads_kv)
    if plain_keys and keys and rank and keys != rank + (rotated or 0):  # kept are the compressed and the rotated ones
        return _cannot_be("attention.key_length", keys)
    head = plain_keys or keys or (width // heads if width and heads else None)
    if rotated and arch not in _NOT_ROTATED and (rotated % 2 or (head and rotated > head)):  # in pairs
        return _cannot_be("rope.dimension_count", rotated)
    return None
