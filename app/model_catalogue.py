"""Which models there are: those that have a name, and those whose files are here. No file is opened for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from specee.app.paths import Paths
from specee.models import cache, embedded, registry, source
from specee.models.registry import RegistryEntry

EMBEDDED, CACHE, COPY, FILE, PARTLY = "embedded", "cache", "copy", "file", "partly"


@dataclass(frozen=True)
class CatalogueModel:
    """A model. `where`: embedded, cache, copy (ours), file (somebody's own), partly (a pull that stopped) or empty.

    `paths` are all its files, of which there are none where it is not here; `n_bytes`: what they have together, of one
    that is here partly what has arrived.
    """

    name: str
    where: str = ""
    paths: tuple[Path, ...] = ()
    n_bytes: int = 0
    entry: RegistryEntry | None = None

    @property
    def here(self) -> bool:
        return bool(self.paths)


def models(folders: Paths) -> Iterator[CatalogueModel]:
    """All of them, one by one as they are found."""
    known: set[Path] = set()
    for entry in registry.entries().values():
        model = named(entry)
        known.update(path.resolve() for path in model.paths)
        yield model
    for found in cache.models():
        if found.paths[0].resolve() not in known and (n_bytes := _size(found.paths)) is not None:
            yield CatalogueModel(f"hf:{found.repo}:{found.paths[0].name}", CACHE, found.paths, n_bytes)
    for path in sorted((folders.data / "models").glob("*.gguf")):  # `models optimize` wrote them
        if (copy := of_file(path, COPY)) is not None:
            yield copy


def named(entry: RegistryEntry) -> CatalogueModel:
    """A model of the registry, here or not."""
    paths: tuple[Path, ...] = ()
    if entry.embedded:
        paths, where = (path,) if (path := embedded.path()) is not None else (), EMBEDDED
    else:
        paths, where = cache.find(source.Source(entry.repo, entry.revision, entry.file)) or (), CACHE
    n_bytes = _size(paths)
    if paths and n_bytes is not None:
        return CatalogueModel(entry.name, where, paths, n_bytes, entry)
    if entry.repo and (begun := _size(cache.unfinished(entry.repo))):
        return CatalogueModel(entry.name, PARTLY, (), begun, entry)
    return CatalogueModel(entry.name, entry=entry)


def of_file(path: Path, where: str = FILE) -> CatalogueModel | None:
    """A file, or all parts of a model whose first file it is, under its path; None for a later part, and for one that
    is not there."""
    names = source.parts(path.name)
    paths = tuple(path.with_name(name) for name in names)
    n_bytes = _size(paths) if path.name == names[0] else None
    return None if n_bytes is None else CatalogueModel(str(path), where, paths, n_bytes)


def beside(path: Path) -> Iterator[CatalogueModel]:
    """The models in the folder of a file."""
    with suppress(OSError):
        for other in sorted(path.parent.glob("*.gguf")):
            if other.is_file() and (model := of_file(other)) is not None:
                yield model


def _size(paths: tuple[Path, ...]) -> int | None:
    """Bytes of the files together; None where one has gone."""
    try:
        return sum(path.stat().st_size for path in paths)
    except OSError:
        return None
