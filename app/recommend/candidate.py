"""A model that can be recommended: what is known of it, here or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from specee.app.recommend.facts import ModelFacts, from_entry
from specee.models.registry import RegistryEntry


@dataclass(frozen=True)
class LocalModel:
    """A model whose file is on this machine. `sha256`: None while nobody has computed it."""

    facts: ModelFacts
    where: str = "cache"
    sha256: str | None = None
    licence: str = ""


@dataclass(frozen=True)
class DraftHead:
    """A draft head that is here: how often its drafts are right, the first of a step, the second after a right first
    one, and so on."""

    file_bytes: int
    acceptance: tuple[float, ...]


@dataclass(frozen=True)
class Candidate:
    """`parameters` as people write it; `local` None: it is not here. `good_for`: what it is made for and does well."""

    name: str
    facts: ModelFacts
    licence: str
    parameters: str
    good_for: tuple[str, ...]
    released: str = ""
    drafter: str = ""
    notes: str = ""
    sha256: str | None = None
    local: LocalModel | None = None
    embedded: bool = False

    @property
    def thinks(self) -> bool:
        """Whether it writes much that is not its answer."""
        return "reasoning" in self.good_for


def candidates(entries: Iterable[RegistryEntry], here: Mapping[str, LocalModel]) -> Iterator[Candidate]:
    """All models of the registry, and those that are here besides. Of what is here the header counts."""
    named = set()
    for entry in entries:
        named.add(entry.name)
        local = here.get(entry.name)
        yield Candidate(
            name=entry.name,
            facts=local.facts if local is not None else from_entry(entry),
            licence=entry.licence,
            parameters=entry.parameters,
            good_for=entry.good_for,
            released=entry.released,
            drafter=entry.drafter,
            notes=entry.notes,
            sha256=entry.sha256 if local is None else local.sha256,
            local=local,
            embedded=entry.embedded,
        )
    for name, local in here.items():
        if name not in named:
            yield Candidate(
                name=name,
                facts=local.facts,
                licence=local.licence,
                parameters=_short(local.facts.parameters),
                good_for=(),
                sha256=local.sha256,
                local=local,
            )


def _short(n: float) -> str:
    """135M, 1.5B."""
    return f"{n / 1e6:.0f}M" if n < 995e6 else f"{n / 1e9:.1f}B"
