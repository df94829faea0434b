"""What to do about a model whose file is damaged: that depends on where it is from."""

from __future__ import annotations

from pathlib import Path

from specee.models import cache, file_hash, source


def advice(path: Path) -> str:
    """In words; a file from the hub is hashed for it, as getting one again that arrived in full helps nobody."""
    found = cache.owner(path)
    if found is None:
        return "get the file again"
    name = f"hf:{found.repo}:{source.parts(path.name)[0]}"
    if found.sha256 == file_hash.sha256(path):
        why = "the repository's file itself is damaged, so take another model"
        return f"{why}; specee-chat models rm {name} frees its place"
    return f"specee-chat models rm {name}, then specee-chat models pull {name}, gets it again"
