"""Whether a draft head fits a model, and is one that llama.cpp can run: it gives up the whole process for some that it
cannot (src/models/eagle3.cpp)."""

from __future__ import annotations

from array import array

from specee.models.architectures import RUNS
from specee.models.gguf_header import Header, Tensor
from specee.models.gguf_types import Array

N_LAYERS = 3  # that a head reads


def target_layers(header: Header) -> tuple[int, ...]:
    """The layers of the target whose states an EAGLE-3 head reads; empty for a whole model."""
    if header.architecture != RUNS:
        return ()
    found = header.of_architecture("target_layers")
    return tuple(int(layer) for layer in found.items or ()) if isinstance(found, Array) else ()


def misfit(target: Header, head: Header, kind: str) -> str | None:
    """Why the head cannot draft for `target`, and what to do; `kind`: what it is, in words."""
    if head.architecture != RUNS:
        return f"it is {kind}, which specee-chat does not run; take a small whole model or an EAGLE-3 head"
    width, layers = target.of_architecture("embedding_length"), target.of_architecture("block_count")
    wanted = head.of_architecture("target_hidden_size") or head.of_architecture("embedding_length")
    if wanted != width:
        return f"it is {kind} for a model of width {wanted}, this one has {width}; take the model's own"
    read = target_layers(head)
    if len(set(read)) != N_LAYERS or len(read) != N_LAYERS or not all(0 < layer < layers for layer in read):
        shown = ", ".join(map(str, read)) or "none"
        return f"it is {kind} that reads layers {shown} of a model, this one has {layers}; take its own"
    return _missing(target, head, kind) or impossible(head, kind)


def _missing(target: Header, head: Header, kind: str) -> str | None:
    """What the head would take from the model, and cannot."""
    own = {tensor.name for tensor in head.tensors}
    shared = {"token_embd.weight": "embeddings", "output.weight": "an LM head"}
    missing = [words for name, words in shared.items() if name not in own]
    if missing and head.of_architecture("embedding_length") != target.of_architecture("embedding_length"):
        return f"it is {kind} without {' and '.join(missing)}, and of another width than the model; take its own"
    if "output.weight" not in own and ("d2t" in own or _n_tokens(head) != _n_tokens(target)):
        return f"it is {kind} without an LM head, and for other tokens than the model's; take its own"
    return None


def impossible(head: Header, kind: str) -> str | None:
    """Why no model can have it as its head."""
    if head.architecture != RUNS:
        return f"it is {kind}, which specee-chat does not run"
    tensors = {tensor.name: tensor for tensor in head.tensors}
    embeddings = tensors.get("token_embd.weight")
    keys, values = (head.of_architecture(f"attention.{name}_length") for name in ("key", "value"))
    why = None
    if head.of_architecture("block_count") != 1:
        why = "it has several layers"
    elif keys != values:
        why = "its keys and values are of different lengths"
    elif embeddings is not None and embeddings.shape[-1] < _n_tokens(head):
        why = "it has fewer embeddings than tokens"
    elif not _are_tokens(head, tensors.get("d2t")):
        why = "it is for tokens that there are not"
    return None if why is None else f"it is {kind} that llama.cpp cannot run: {why}"


def _n_tokens(header: Header) -> int:
    vocabulary = header.values.get("tokenizer.ggml.tokens")
    return vocabulary.length if isinstance(vocabulary, Array) else 0


def _are_tokens(head: Header, known: Tensor | None) -> bool:
    """Whether the list of tokens that a head knows, where it has one, holds tokens of its vocabulary."""
    if known is None:
        return True
    if known.type != "I64":
        return False
    tokens = array("q")
    with head.files[known.part].open("rb") as file:
        file.seek(known.offset)
        tokens.frombytes(file.read(known.n_bytes))
    n_tokens = _n_tokens(head)
    return all(0 <= token < n_tokens for token in tokens)
