"""What each layer of a model weighs: where layers are shared out to devices, each needs room for its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from specee.models.gguf_header import Header

_LAYER = re.compile(r"blk\.(\d+)\.")
_HEADS = ("output.weight", "token_embd.weight")


@dataclass(frozen=True)
class LayerBytes:
    """Bytes of weights. `head`: of final norm and LM head; where the embedding is the head, a copy of it."""

    layers: tuple[int, ...]
    head: int


def read(header: Header) -> LayerBytes:
    """Of the model that the header describes."""
    sizes: dict[int, int] = {}
    named = {tensor.name: tensor.n_bytes for tensor in header.tensors}
    for name, n_bytes in named.items():
        if found := _LAYER.match(name):
            layer = int(found[1])
            sizes[layer] = sizes.get(layer, 0) + n_bytes
    head = next((named[name] for name in _HEADS if name in named), 0)
    norm = sum(n_bytes for name, n_bytes in named.items() if name.startswith("output_norm"))
    n_layer = header.of_architecture("block_count") or 0
    return LayerBytes(tuple(sizes.get(layer, 0) for layer in range(n_layer)), head + norm)
