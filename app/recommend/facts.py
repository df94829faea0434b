"""What an estimate needs of a model: from the registry before a download, from the file's header afterwards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from specee.models import model_structure
from specee.models.gguf_header import Header, Tensor
from specee.models.registry import RegistryEntry

EMBEDDING_BITS = {"Q4_K": 4.5, "Q5_K": 5.5, "Q3_K": 3.44, "Q2_K": 2.63, "Q4_0": 4.5, "Q4_1": 5.0, "Q6_K": 6.56}
EMBEDDING_BITS |= {"Q5_0": 5.5, "Q5_1": 6.0, "F16": 16.0, "BF16": 16.0, "F32": 32.0}
"""Of a weight of the embedding where the LM head is another matrix, by the type of the file; of all others 8.5."""
MIXED = {"Q4_K": ("Q6_K", 0.25), "Q5_K": ("Q6_K", 0.25), "Q3_K": ("Q5_K", 0.3), "Q2_K": ("Q3_K", 0.4)}
"""Which other type files of a type also have (_K_M), and its share of the bytes."""

_QUANT = re.compile(r"(?<![a-z0-9])(iq\d_[a-z]+|q\d(?:_k|_[01])?|mxfp4|bf16|f16|f32)(?:_[sml]|_xl)?(?![a-z0-9])", re.I)
_SCALE = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_LAYER = re.compile(r"blk\.(\d+)\.")
_ROWS = ("per_layer_token_embd.weight", "position_embd.weight")
_EXPERTS = re.compile(r"\.ffn_\w*_exps\.")


@dataclass(frozen=True)
class ModelFacts:
    """Sizes in bytes. `reads`: what one token reads of the weights, by their type; 0 or empty where it is not known.
    `queries_per_key`: how many heads attend to the same keys and values.

    `exact`: from the header; else from the registry, and what is missing there is a rule of thumb.
    """

    file_bytes: int
    weight_bytes: int
    reads: Mapping[str, int]
    layers: int
    kv_bytes_per_token: int
    width: int
    heads: int
    queries_per_key: float
    vocabulary: int
    context: int
    parameters: float
    active_parameters: float
    exact: bool

    @property
    def read_bytes(self) -> int:
        """Weights that one token reads."""
        return sum(self.reads.values())


def count(text: str) -> float:
    """A number of parameters as people write it: 135M, 1.5B; 0 for what is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMBT])\s*", text, re.IGNORECASE)
    return float(found[1]) * _SCALE[found[2].upper()] if found else 0.0


def quantization(file: str) -> str:
    """The type of most weights, as the file's name says it; Q4_K where it does not."""
    found = _QUANT.findall(file)
    return str(found[-1]).upper() if found else "Q4_K"


def from_entry(entry: RegistryEntry) -> ModelFacts:
    """By what the registry knows; where it does not say how wide a model is, the estimate is on the slow side."""
    parameters, active = count(entry.parameters), count(entry.active)
    kind = quantization(entry.file)
    file_bytes = entry.bytes
    embedding = 0
    if not entry.tied:
        embedding = int(entry.vocabulary * entry.width * EMBEDDING_BITS.get(kind, 8.5) / 8)
    read = int((file_bytes - embedding) * (active / parameters if active and parameters else 1.0))
    other, share = MIXED.get(kind, (kind, 0.0))
    reads = Counter({kind: int(read * (1 - share))})
    reads[other] += int(read * share)
    return ModelFacts(
        file_bytes=file_bytes,
        weight_bytes=file_bytes,
        reads=dict(reads),
        layers=entry.layers,
        kv_bytes_per_token=entry.window_bytes,
        width=entry.width,
        heads=entry.heads,
        queries_per_key=entry.heads / entry.kv_heads if entry.heads and entry.kv_heads else 1.0,
        vocabulary=entry.vocabulary,
        context=entry.context,
        parameters=parameters,
        active_parameters=active or parameters,
        exact=False,
    )


def from_header(header: Header) -> ModelFacts:
    """By the header of the file, or of all parts of one."""
    read = model_structure.read(header)
    reads: Counter[str] = Counter()
    parameters = active = 0.0
    for tensor, of_token in _shares(header):
        reads[tensor.type] += int(tensor.n_bytes * of_token)
        parameters += tensor.n_elements
        active += tensor.n_elements * of_token
    return ModelFacts(
        file_bytes=read.file_bytes,
        weight_bytes=read.weight_bytes,
        reads=dict(reads),
        layers=read.layers,
        kv_bytes_per_token=read.kv_bytes_per_token,
        width=read.width,
        heads=int(read.heads),
        queries_per_key=read.heads / read.heads_kv if read.heads_kv else 1.0,
        vocabulary=read.vocabulary,
        context=read.context,
        parameters=parameters,
        active_parameters=active,
        exact=True,
    )


def _shares(header: Header) -> Iterator[tuple[Tensor, float]]:
    """The tensors with the share of each that one token reads: some rows of them count as none."""
    experts = _share_of_experts(header)
    has_head = any(tensor.name == "output.weight" for tensor in header.tensors)
    layers = int(header.of_architecture("block_count") or 0) - int(header.of_architecture("nextn_predict_layers") or 0)
    for tensor in header.tensors:
        layer = _LAYER.match(tensor.name)
        if tensor.name in _ROWS or (tensor.name == "token_embd.weight" and has_head):
            continue
        if layer is not None and int(layer[1]) >= layers:  # they only draft
            continue
        yield tensor, experts if _EXPERTS.search(tensor.name) else 1.0


def _share_of_experts(header: Header) -> float:
    """How many of a layer's experts a token uses, of all."""
    n, used = header.of_architecture("expert_count"), header.of_architecture("expert_used_count")
    return min(1.0, used / n) if isinstance(n, int) and isinstance(used, int) and n > 0 and used > 0 else 1.0
