"""What to do about a model whose file is damaged: that depends on where it is from."""

from __future__ import annotations

import re
from pathlib import Path

from specee.models import cache, embedded, file_hash, source

AGAIN = "specee-chat train makes it again"
"""Of a draft head that was trained here."""

_OWN_HEAD = re.compile(r"[0-9a-f]{64}\.eagle3\.gguf")  # see heads.own_path


def advice(path: Path) -> str:
    """In words; a file from the hub is hashed for it, as getting one again that arrived in full helps nobody."""
    if _OWN_HEAD.fullmatch(path.name):
        return AGAIN
    if embedded.data_file(path.name) == path:
        return "it came with specee-chat: install that again"
    found = cache.owner(path)
    if found is None:
        return "get the file again"
    name = f"hf:{found.repo}:{source.parts(path.name)[0]}"
    if found.sha256 == file_hash.sha256(path):
        why = "the repository's file itself is damaged, so take another model"
        return f"{why}; specee-chat models rm {name} frees its place"
    return f"specee-chat models rm {name}, then specee-chat models pull {name}, gets it again"
