"""What a model is made of, from its header: its sizes, the types of its weights, the costs of LM head and memory."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from specee.models import kv_cache
from specee.models.gguf_header import Header, Tensor
from specee.models.gguf_types import Array

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")


@dataclass(frozen=True)
class ModelStructure:
    """Sizes in bytes. `heads_kv` is the mean over the layers; `groups` has, by part of the model, bytes by type."""

    name: str
    arch: str
    layers: int
    width: int
    heads: float
    heads_kv: float
    head_dim: int
    feed_forward: int
    vocabulary: int
    context: int
    sliding_window: int
    chat_template: bool
    licence: str | None
    parameters: int
    file_bytes: int
    weight_bytes: int
    groups: dict[str, dict[str, int]]
    head_tied: bool
    head_type: str
    head_layers: float
    kv_bytes_per_token: int

    def memory(self, n_ctx: int) -> int:
        """Bytes of the weights and of keys and values for a window of `n_ctx` tokens; buffers come on top."""
        return self.weight_bytes + n_ctx * self.kv_bytes_per_token


def read(header: Header, kv_type: str = kv_cache.KV_TYPE) -> ModelStructure:
    """The structure that the header describes; `kv_type`: what keys and values are kept in."""
    values, of = header.values, header.of_architecture
    layers, width = of("block_count") or 0, of("embedding_length") or 0
    heads, heads_kv = _mean(of("attention.head_count")), _mean(of("attention.head_count_kv"))
    heads_kv = heads_kv or heads
    first = _first(of("attention.head_count"))
    key_dim = of("attention.key_length") or (width // first if first else 0)
    head = _head(header.tensors)
    return ModelStructure(
        name=str(values.get("general.name") or header.path.stem),
        arch=header.architecture,
        layers=layers,
        width=width,
        heads=heads,
        heads_kv=heads_kv,
        head_dim=key_dim,
        feed_forward=int(_mean(of("feed_forward_length"))),
        vocabulary=_length(values.get("tokenizer.ggml.tokens")) or of("vocab_size") or 0,
        context=of("context_length") or 0,
        sliding_window=int(_mean(of("attention.sliding_window"))),
        chat_template=bool(_text(values.get("tokenizer.chat_template"))),
        licence=_text(values.get("general.license")),
        parameters=sum(tensor.n_elements for tensor in header.tensors),
        file_bytes=header.file_bytes,
        weight_bytes=sum(tensor.n_bytes for tensor in header.tensors),
        groups=_groups(header.tensors),
        head_tied=head is not None and head.name != "output.weight",
        head_type=head.type if head is not None else "",
        head_layers=_layer_equivalents(head, header.tensors),
        kv_bytes_per_token=kv_cache.bytes_per_token(header, kv_type),
    )


def _head(tensors: tuple[Tensor, ...]) -> Tensor | None:
    """The output matrix; without one of its own a model uses the embedding."""
    named = {tensor.name: tensor for tensor in tensors}
    return named.get("output.weight") or named.get("token_embd.weight")


def _layer_equivalents(head: Tensor | None, tensors: tuple[Tensor, ...]) -> float:
    """Bytes of the head over the mean bytes of a layer: on a CPU a token's time is mostly reading weights."""
    layers: Counter[str] = Counter()
    for tensor in tensors:
        if found := _LAYER.match(tensor.name):
            layers[found[1]] += tensor.n_bytes
    mean = sum(layers.values()) / len(layers) if layers else 0
    return head.n_bytes / mean if head is not None and mean else 0.0


def _groups(tensors: tuple[Tensor, ...]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for tensor in tensors:
        found[_group(tensor.name)][tensor.type] += tensor.n_bytes
    return {name: dict(types.most_common()) for name, types in found.items()}


def _group(name: str) -> str:
    inner = _LAYER.match(name)
    if inner is None:
        return {"token_embd.weight": "embedding", "output.weight": "head"}.get(name, "norms and others")
    if "norm" in inner[2] or not inner[2].endswith(".weight"):
        return "norms and others"
    return (
        "attention" if inner[2].startswith("attn") else "feed-forward" if inner[2].startswith("ffn") else "other layers"
    )


def _mean(value: Any) -> float:
    """The mean of a list with a number for each layer; a single number as it is; 0 where there is none."""
    if isinstance(value, Array):
        return sum(value.items) / len(value.items) if value.items else 0.0
    return float(value or 0)


def _first(value: Any) -> int:
    """The first layer's number: a head is as wide as it makes it."""
    return int((value.items or (0,))[0]) if isinstance(value, Array) else int(value or 0)


def _text(value: Any) -> str | None:
    """Files have other things there, too, which llama.cpp passes over."""
    return value if isinstance(value, str) else None


def _length(value: Any) -> int:
    return value.length if isinstance(value, Array) else 0
