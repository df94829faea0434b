"""What a model's file says of its tokens that a chat template may need to know, and the templates that it brings."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from specee.models.gguf_header import Header
from specee.models.gguf_types import INT32, STRING, Array
from specee.models.tokenizer_values import TEMPLATE, TOKENIZER

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""Types of tokens; the names of all but normal ones stand for themselves in texts."""
SPECIAL = {
    "bos": "bos_token",
    "eos": "eos_token",
    "unknown": "unk_token",
    "seperator": "sep_token",  # as the format spells it
    "padding": "pad_token",
    "cls": "cls_token",
    "mask": "mask_token",
}
"""Names of tokens in the file, and in templates."""
_TAG = re.compile(r"</?[a-z]+>")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True)
class Vocabulary:
    """`names`: of tokens whose names stand for themselves, as control tokens; `special`: those by their part, as
    `bos_token`; `as_text`: tags, as of HTML, that it has as text."""

    names: frozenset[str]
    special: Mapping[str, str]
    as_text: frozenset[str] = frozenset()


def read(header: Header) -> Vocabulary:
    """The vocabulary that the file has."""
    values = header.values
    tokens, types = values.get(f"{TOKENIZER}tokens"), values.get(f"{TOKENIZER}token_type")
    if not isinstance(tokens, Array) or tokens.kind != STRING:
        return Vocabulary(frozenset(), {})
    wanted = {name: values.get(f"{TOKENIZER}{key}_token_id") for key, name in SPECIAL.items()}
    with header.files[0].open("rb") as file:
        file.seek(tokens.start)
        data = file.read(tokens.stop - tokens.start)
        kinds: tuple[int, ...] = ()
        if isinstance(types, Array) and types.kind == INT32:
            file.seek(types.start)
            kinds = struct.unpack(f"<{types.length}i", file.read(4 * types.length))
    texts, at = [], 0
    for _ in range(tokens.length):
        end = at + 8 + _U64.unpack_from(data, at)[0]
        texts.append(data[at + 8 : end])
        at = end
    parts = {value for key, value in values.items() if key.startswith(TOKENIZER) and key.endswith("_token_id")}
    typed = list(zip((text.decode("utf-8", "replace") for text in texts), kinds, strict=False))
    return Vocabulary(
        frozenset(text for text, kind in typed if kind in (UNKNOWN, CONTROL, USER_DEFINED)),
        {name: texts[i].decode("utf-8", "replace") for name, i in wanted.items() if i is not None and i < len(texts)},
        frozenset(
            text
            for i, (text, kind) in enumerate(typed)
            if kind in (NORMAL, USER_DEFINED) and i not in parts and _TAG.fullmatch(text)
        ),
    )


def templates(header: Header) -> dict[str, str]:
    """Chat templates by name, "" the nameless one."""
    return {
        key.removeprefix(TEMPLATE).removeprefix("."): value
        for key, value in header.values.items()
        if (key == TEMPLATE or key.startswith(f"{TEMPLATE}.")) and isinstance(value, str)
    }
