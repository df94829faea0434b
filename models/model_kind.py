"""Whether a GGUF file holds a model that can chat; if not, what else it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from specee.models import architectures
from specee.models.errors import ModelError, NotAChatModelError
from specee.models.gguf_types import Array

if TYPE_CHECKING:
    from specee.models.gguf_header import Header

MAX_SHOWN = 60  # characters of a name that a file brings
CHAT_MODEL = "take a chat model: specee-chat models list has some"
_MEAN, _CLASS, _LAST, _RANK = 1, 2, 3, 4  # enum llama_pooling_type
_NEXTN = "nextn_predict_layers"


def check_usable(path: Path, values: dict[str, Any]) -> None:
    """Raises NotAChatModelError for what is of no use here, not even to draft. `values`: of the file's header."""
    if (found := _no_model(values) or _no_chat_model(values)) is not None:
        kind, to_do = found
        raise NotAChatModelError(path, kind, to_do)
    arch = values.get("general.architecture")
    if isinstance(arch, str) and arch not in architectures.KNOWN:
        why = f"{path} is of the architecture {shown(arch)!r}, which llama.cpp as it is built in here does not know"
        raise ModelError("unknown architecture", f"{why}; it needs a newer specee-chat, or another program")


def check_answers(header: Header) -> None:
    """Raises ModelError for a file that only drafts, or that lacks what an answer needs."""
    part = "not a whole model"
    if kind := head_kind(header):
        why = f"{kind}: it drafts for another model and cannot answer alone"
        runs = header.architecture == architectures.RUNS
        to_do = (
            "give it as --drafter, and its model as --model" if runs else "give its model: such heads do not run here"
        )
        raise NotAChatModelError(header.path, why, to_do, part)
    if _drafts_alone(header):
        why = "only the layers of a model that draft for it (multi-token prediction)"
        raise NotAChatModelError(header.path, why, "give the model's own file", part)
    tokenizer, tokens = (header.values.get(f"tokenizer.ggml.{key}") for key in ("model", "tokens"))
    if tokenizer in (None, "none", "no_vocab") or not isinstance(tokens, Array):
        why = "a model without a tokenizer, which can read no text"
        raise NotAChatModelError(header.path, why, "take a file of it that has one")


def head_kind(header: Header) -> str | None:
    """What the file is where it only drafts and cannot answer, in words; None for a whole model."""
    return architectures.HEADS.get(header.architecture)


def _no_model(values: dict[str, Any]) -> tuple[str, str] | None:
    """What goes with a model, as its `general.type` says."""
    kind = values.get("general.type")
    if kind == "adapter" or "adapter.type" in values:
        base = next((values[key] for key in ("general.base_model.0.name", "general.architecture") if key in values), "")
        to_what = f" to {shown(base)}" if isinstance(base, str) and base else ""
        merged = "take a model that it is merged into (llama.cpp's llama-export-lora does that)"
        return f"a LoRA adapter, a change{to_what} that specee-chat does not apply", merged
    if kind == "mmproj":
        return architectures.SEES, "give the model's own file, which is mostly beside it"
    if kind == "imatrix":
        return "an importance matrix (imatrix), which helps to quantize a model", "give the model's own file"
    return None


def _no_chat_model(values: dict[str, Any]) -> tuple[str, str] | None:
    arch = values.get("general.architecture")
    if arch is None:
        if any(key.startswith("split.") for key in values):
            return None  # a later part of a model
        return "a GGUF file of another kind: it names no architecture, as language models do", CHAT_MODEL
    if (kind := architectures.NO_CHAT.get(arch) if isinstance(arch, str) else None) is not None:
        goes_with_one = kind in (architectures.SEES, architectures.STEERS, architectures.CALIBRATES)
        return kind, "give the model's own file" if goes_with_one else CHAT_MODEL
    pooling = values.get(f"{arch}.pooling_type")
    if type(pooling) is int and pooling in (_MEAN, _CLASS, _LAST, _RANK):
        return architectures.RANKS if pooling == _RANK else architectures.EMBEDS, CHAT_MODEL
    if values.get(f"{arch}.attention.causal") is False:
        return "a model that reads texts in both directions: it cannot write one token after the other", CHAT_MODEL
    return None


def _drafts_alone(header: Header) -> bool:
    """Whether its first layer is not there, and layers for multi-token prediction are."""
    names = [tensor.name for tensor in header.tensors]
    has_heads = header.of_architecture(_NEXTN) or any(".nextn." in name for name in names)
    return bool(has_heads) and not any(name.startswith("blk.0.") for name in names)


def shown(text: str) -> str:
    """A text of a file as a message may have it."""
    return "".join(sign if sign.isprintable() else "�" for sign in text[:MAX_SHOWN])
