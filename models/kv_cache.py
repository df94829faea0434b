"""How much memory keys and values of a token take: not all layers keep them, nor alike."""

from __future__ import annotations

from typing import Any

from specee.models import architectures
from specee.models.gguf_header import Header
from specee.models.gguf_types import Array

VALUE_BYTES = {"f16": 2.0, "q8_0": 34 / 32}  # of a key's or a value's number: q8_0 has a scale for 32 of them
KV_TYPE = "f16"
BLOCKS = {"q8_0": 32}  # so many numbers of a head's key, or value, together

# one layer in so many attends, the others are recurrent, where the header does not say it
_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
_GEMMA3N_OWN = 20  # layers with K and V of their own; those after them take theirs


def bytes_per_token(header: Header, kv_type: str = KV_TYPE) -> int:
    """Of all layers. Sliding windows take as much: a row's place in the cache is its position."""
    of = header.of_architecture
    compressed = of("attention.key_length_mla") is not None  # V is made of what is kept as K
    indexed = 0 if of("attention.compress_ratios") else of("attention.indexer.key_length") or 0
    total = 0
    for layer in _layers(header):
        heads = _at(of("attention.head_count_kv"), layer)
        heads = _at(of("attention.head_count"), layer) if heads is None else heads
        keys, values = _lengths(header, layer)
        total += (heads or 0) * (keys + (0 if compressed else values)) + indexed
    return int(total * VALUE_BYTES[kv_type])


def converted(n_bytes: int, kv_type: str) -> int:
    """What keys and values that take so much as float16 take in this type."""
    return int(n_bytes / VALUE_BYTES[KV_TYPE] * VALUE_BYTES[kv_type])


def can_have(header: Header, kv_type: str) -> bool:
    """Whether keys and values of each head are whole blocks of this type."""
    block = BLOCKS.get(kv_type, 1)
    return all(length % block == 0 for layer in _layers(header) for length in _lengths(header, layer))


def _lengths(header: Header, layer: int) -> tuple[int, int]:
    """Numbers of a head's key, and of its value."""
    of = header.of_architecture
    first = _at(of("attention.head_count"), 0)
    head = (of("embedding_length") or 0) // first if first else 0
    slides = "_swa" if _at(of("attention.sliding_window_pattern"), layer, alike=False) else ""
    keys, values = (
        of(f"attention.{what}_length{slides}") or of(f"attention.{what}_length") or head for what in ("key", "value")
    )
    return keys, values


def _layers(header: Header) -> list[int]:
    """Those that keep keys and values of their own."""
    of, arch = header.of_architecture, header.architecture
    if arch in architectures.RECURRENT:
        return []
    n = max(0, (of("block_count") or 0) - (of("nextn_predict_layers") or 0))
    if arch == "gemma3n":
        n = min(n, _GEMMA3N_OWN)
    n -= min(n, of("attention.shared_kv_layers") or 0)
    recurrent = of("attention.recurrent_layers")
    interval = _INTERVALS.get(arch)
    if isinstance(recurrent, Array):
        return [layer for layer in range(n) if not _at(recurrent, layer)]
    if interval is None:
        return list(range(n))
    interval = of("full_attention_interval") or interval
    return [layer for layer in range(n) if (layer + 1) % interval == 0]


def _at(value: Any, layer: int, *, alike: bool = True) -> Any:
    """A layer's item of a list; a single number where it counts for all layers `alike`."""
    if isinstance(value, Array):
        return value.items[layer] if value.items is not None and layer < len(value.items) else None
    return value if alike else None
