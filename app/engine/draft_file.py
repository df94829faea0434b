"""Which file drafts for a model, and whether it fits; a program can ask without loading anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from specee.app import memory
from specee.app.errors import AppError
from specee.app.formatting import size
from specee.app.options import DEFAULT_KV_TYPE, NO_DRAFTER, LoadOptions
from specee.app.settings import KVType
from specee.models import draft_model, gguf_header, head_fit, heads, model_structure, resolve
from specee.models.errors import ModelError

if TYPE_CHECKING:
    from specee.models.gguf_header import Header

STATE_BYTES, OWN_STATE_BYTES = 2, 4  # of the model's layers in float16, of the head in float32
OWN_HEAD = "its own draft head"


@dataclass(frozen=True)
class DraftFile:
    """A file that fits the large model: a small model, or an EAGLE-3 head."""

    name: str
    path: str
    layers: tuple[int, ...] = ()
    """Of the large model: what an EAGLE-3 head reads the states of."""
    trained_for: str | None = None
    """The hash of the model file that an EAGLE-3 head learned from, where it says so."""
    is_wanted: bool = True
    """Whether the user named it: else it is not missed."""
    files: tuple[Path, ...] = ()


def find(options: LoadOptions, target: Header, n_ctx: int, head: Path | None = None) -> DraftFile | None:
    """What drafts for the model: what the user named, else its own head, else what the registry pairs it with, where
    that is here. `head`: the one that was trained for it.

    Raises errors with a title and a message where a named one is not here, does not fit, or needs too much memory.
    """
    if options.drafter == NO_DRAFTER:
        return None
    if options.drafter is not None:
        found = resolve.resolve(options.drafter)
        return _checked(found.name, found.path, target, n_ctx, options.kv_type)
    if head is not None and options.n_slots == 1 and _is_worth_using(head):
        own = _unasked(OWN_HEAD, head, target, n_ctx, options.kv_type)
        if own is not None:
            return own
    pair = draft_model.paired(options.model)
    if pair is None or pair.path is None:
        return None
    return _unasked(pair.name, pair.path, target, n_ctx, options.kv_type)


def _is_worth_using(head: Path) -> bool:
    try:
        return heads.is_worth_using(gguf_header.read_model(head))
    except ModelError:
        return False


def _unasked(name: str, path: Path, target: Header, n_ctx: int, kv_type: KVType) -> DraftFile | None:
    """What nobody asked for, where it fits."""
    try:
        return replace(_checked(name, path, target, n_ctx, kv_type), is_wanted=False)
    except (ModelError, AppError):
        return None


def check_drafter(options: LoadOptions) -> None:
    """Raises what `find` raises for a named drafter that is not here or does not fit the model."""
    if options.drafter not in (None, NO_DRAFTER):
        found = resolve.resolve(options.drafter)
        target = gguf_header.read_model(resolve.resolve(options.model).path)
        draft_model.check(target, gguf_header.read_model(found.path))


def _checked(name: str, path: Path, target: Header, n_ctx: int, kv_type: KVType) -> DraftFile:
    header = gguf_header.read_model(path)
    draft_model.check(target, header)
    layers = head_fit.target_layers(header)
    large = model_structure.read(target, kv_type)
    small = model_structure.read(header, DEFAULT_KV_TYPE if layers else kv_type)  # a head keeps float16
    states = n_ctx * len(layers) * large.width * STATE_BYTES + (n_ctx * small.width * OWN_STATE_BYTES if layers else 0)
    both, free = small.memory(n_ctx) + states + large.memory(n_ctx), memory.free_ram()
    if free is not None and both > free:
        raise AppError(
            "too little memory for the drafter",
            f"the model and {name} need {size(both)}, {size(free)} are free; "
            "take a smaller --ctx, a smaller drafter, or --drafter none",
        )
    return DraftFile(name, str(path), layers, heads.trained_for(header), files=header.files)
