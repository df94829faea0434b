"""What a model's file says of its tokens, held against each other.

llama.cpp passes over much of it and takes something else instead: a model with a last token that is none answers
without end.
"""

from __future__ import annotations

import math
import mmap
import struct
from typing import Any

from specee.models.gguf_types import FLOAT32, INT32, STRING, Array

TOKENIZER, TEMPLATE = "tokenizer.ggml.", "tokenizer.chat_template"
_TOKENS, _MERGES, _SCORES = f"{TOKENIZER}tokens", f"{TOKENIZER}merges", f"{TOKENIZER}scores"
_ONE_EACH = {f"{TOKENIZER}token_type": (INT32,), _SCORES: (FLOAT32, INT32)}
_SPECIAL = "_token_id"
_U64 = struct.Struct("<Q")


def wrong(values: dict[str, Any], data: mmap.mmap) -> str | None:
    """What cannot be, in words; None when all goes together. `data` is the file, whose lists are known to be in it."""
    for key, value in values.items():
        if (key == TEMPLATE or key.startswith(f"{TEMPLATE}.")) and not isinstance(value, str):
            return f"{key[:80]} is no text"
    tokens = values.get(_TOKENS)
    if tokens is None:
        return None  # llama.cpp refuses it, if it is to answer
    if not isinstance(tokens, Array) or tokens.kind != STRING or not tokens.length:
        return "its tokens are no list of texts"
    return (
        _wrong_special(values, tokens.length)
        or _wrong_list(values, tokens.length)
        or _wrong_scores(values.get(_SCORES), data)
        or _wrong_merge(values.get(_MERGES), data)
    )


def _wrong_special(values: dict[str, Any], count: int) -> str | None:
    for key, value in values.items():
        if not (key.startswith(TOKENIZER) and key.endswith(_SPECIAL)):
            continue
        if type(value) is not int or not 0 <= value < count:
            return f"{key[len(TOKENIZER) :][:80]} cannot be {str(value)[:80]!r}: its tokens are 0 to {count - 1}"
    return None


def _wrong_list(values: dict[str, Any], count: int) -> str | None:
    for key, kinds in _ONE_EACH.items():
        found = values.get(key)
        if found is None:
            continue
        name = key[len(TOKENIZER) :]
        if not isinstance(found, Array) or found.kind not in kinds:
            return f"{name} is no list of numbers as it must be"
        if found.length < count:
            return f"{name} has {found.length} items for {count} tokens"
    return None


def _wrong_scores(scores: Any, data: mmap.mmap) -> str | None:
    if scores is None or scores.kind != FLOAT32:
        return None
    numbers = memoryview(data[scores.start : scores.stop]).cast("f")
    return None if all(map(math.isfinite, numbers)) else "one of its tokens has a score that is no number"


def _wrong_merge(merges: Any, data: mmap.mmap) -> str | None:
    """Each joins two pieces, with a space between them."""
    if merges is None:
        return None
    if not isinstance(merges, Array) or merges.kind != STRING:
        return "merges is no list of texts"
    at = merges.start
    for index in range(merges.length):
        end = at + 8 + _U64.unpack_from(data, at)[0]
        if not at + 8 < data.find(b" ", at + 9, end) < end - 1:
            return f"merge {index} does not have two pieces"
        at = end
    return None
