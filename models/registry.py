"""The models that have a name of their own: registry.toml, read."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class RegistryEntry:
    """One model. `repo` and `file` are empty for the embedded one; `context` counts tokens, `bytes` those of its file.

    `drafter`: the name of a much smaller model with the same vocabulary, empty where there is none.
    `active`: of a mixture of experts, the parameters that a token uses; of all others empty.
    `width`, `heads`, `vocabulary`, `tied`, `released`: see registry.toml; 0 or empty where nobody has looked it up.
    """

    name: str
    bytes: int
    licence: str
    parameters: str
    layers: int
    kv_heads: int
    head_dim: int
    context: int
    notes: str
    active: str = ""
    good_for: tuple[str, ...] = ()
    repo: str = ""
    file: str = ""
    revision: str = "main"
    sha256: str | None = None
    other_names: tuple[str, ...] = ()
    drafter: str = ""
    embedded: bool = False
    width: int = 0
    heads: int = 0
    vocabulary: int = 0
    tied: bool = False
    released: str = ""

    @property
    def window_bytes(self) -> int:
        """Memory that a token takes in the context window: K and V of 16 bits in each layer."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


@lru_cache(maxsize=1)
def entries() -> dict[str, RegistryEntry]:
    """All models, by name."""
    tables = tomllib.loads(Path(__file__).with_name("registry.toml").read_text("utf-8"))
    return {name: RegistryEntry(name=name, **_hashable(table)) for name, table in tables.items()}


def _hashable(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


@lru_cache(maxsize=1)
def _by_any_name() -> dict[str, RegistryEntry]:
    found = dict(entries())
    for entry in entries().values():
        found.update(dict.fromkeys(entry.other_names, entry))
    return found


def lookup(name: str) -> RegistryEntry | None:
    """The model of that name, `name:tag` as ollama writes it included; None when there is none."""
    wanted = name.lower().removesuffix(":latest")
    return _by_any_name().get(wanted) or _by_any_name().get(wanted.replace(":", "-"))


def nearest(name: str) -> list[str]:
    """Up to three names that may have been meant, the likeliest first."""
    wanted = name.lower().replace(":", "-")
    close = difflib.get_close_matches(wanted, _by_any_name(), n=6, cutoff=0.5)
    return list(dict.fromkeys(_by_any_name()[found].name for found in close))[:3]
