"""Which models draft for which: what the registry pairs, and whether two files fit each other.

A draft model's tokens must mean what the large model's do. The vocabularies are compared as llama.cpp's own speculation
does it (common/speculative.cpp): the kind of tokenizer, the beginning-of-sequence token where one is put in front, and
the text of every token but the first few, up to padding at the end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from specee.models import architectures, resolve
from specee.models.errors import ModelError
from specee.models.gguf_header import Header
from specee.models.gguf_types import Array
from specee.models.head_fit import misfit
from specee.models.model_kind import head_kind

MAX_PADDING = 128  # SPEC_VOCAB_MAX_SIZE_DIFFERENCE
FIRST_COMPARED = 5  # SPEC_VOCAB_CHECK_START_TOKEN_ID: the tokens before it differ between models that fit

_U64 = struct.Struct("<Q")
_TOKENIZER = "tokenizer.ggml."


@dataclass(frozen=True)
class Pair:
    """The draft model that the registry names for a model. `path` is None while it is not on this machine."""

    name: str
    path: Path | None


def paired(model: str | None) -> Pair | None:
    """What drafts for the model of this name; None where nothing is known. Raises ModelError for an unknown name."""
    entry = resolve.interpret(model).entry
    if entry is None or not entry.drafter:
        return None
    try:
        return Pair(entry.drafter, resolve.resolve(entry.drafter).path)
    except ModelError:
        return Pair(entry.drafter, None)


def own_draft_layers(header: Header) -> int:
    """Layers of the model itself that draft (multi-token prediction, "nextn")."""
    return int(header.of_architecture("nextn_predict_layers") or 0)


def check(target: Header, draft: Header) -> None:
    """Raises ModelError where `draft` cannot draft for `target`: what does not fit, and what to do."""
    if draft.path.samefile(target.path):
        raise _unfit(draft, "it is the model itself; take a smaller one of the same family")
    for header, who in ((target, "the model"), (draft, "it")):
        if header.architecture in architectures.RECURRENT | architectures.HYBRID:
            forward_only = f"{who} keeps a running state ({header.architecture}), which cannot drop rejected tokens"
            raise _unfit(draft, f"{forward_only}; take {'none' if header is target else 'another small model'}")
    if (kind := head_kind(draft)) and (why := misfit(target, draft, kind)):
        raise _unfit(draft, why)
    if difference := _difference(target, draft):
        raise _unfit(draft, f"{difference}; take a small model of the same family")


def _unfit(draft: Header, why: str) -> ModelError:
    return ModelError("the drafter does not fit", f"{draft.path.name}: {why}")


def _difference(target: Header, draft: Header) -> str | None:
    """The first difference between the vocabularies, in words."""

    def values(key: str) -> tuple[object, object]:
        return target.values.get(_TOKENIZER + key), draft.values.get(_TOKENIZER + key)

    large, small = values("model")
    if large != small:
        return f"its tokenizer is {small}, the model's is {large}"
    bos = values("bos_token_id")
    if all(values("add_bos_token")) and bos[0] != bos[1]:
        return f"its texts begin with token {bos[1]}, the model's with {bos[0]}"
    in_large, in_small = values("tokens")
    if not isinstance(in_large, Array) or not isinstance(in_small, Array):
        return "one of the two has no vocabulary in its file"
    if abs(in_large.length - in_small.length) > MAX_PADDING:
        return f"its vocabulary has {in_small.length} tokens, the model's has {in_large.length}"
    texts = [_stored_texts(target, in_large), _stored_texts(draft, in_small)]
    at = [_skip(text, FIRST_COMPARED) for text in texts]
    shorter = min(len(text) - start for text, start in zip(texts, at, strict=True))
    if texts[0][at[0] : at[0] + shorter] != texts[1][at[1] : at[1] + shorter]:
        return f"its vocabulary has other tokens than the model's, {_first_difference(texts, at)}"
    return None


def _stored_texts(header: Header, array: Array) -> bytes:
    """The texts of a list as the file has them: each with its length before it."""
    with header.path.open("rb") as file:
        file.seek(array.start)
        return file.read(array.stop - array.start)


def _skip(texts: bytes, n: int) -> int:
    """Where the text after the first n begins."""
    at = 0
    for _ in range(n):
        if at < len(texts):
            at += 8 + int(_U64.unpack_from(texts, at)[0])
    return at


def _first_difference(texts: list[bytes], at: list[int]) -> str:
    token = FIRST_COMPARED
    while True:
        shown = []
        for i, start in enumerate(at):
            length = int(_U64.unpack_from(texts[i], start)[0])
            shown.append(texts[i][start + 8 : start + 8 + length])
            at[i] = start + 8 + length
        if shown[0] != shown[1]:
            large, small = (text.decode("utf-8", "replace")[:40] for text in shown)
            return f"{small!r} for {large!r} as token {token}"
        token += 1
