"""Which models there are, and which of them are here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from specee.app.cli import tables
from specee.app.formatting import size
from specee.app.paths import Paths
from specee.models import cache, calibrations, embedded, file_hash, gguf_header, model_kind, registry, source
from specee.models.errors import ModelError, NotAChatModelError


@dataclass(frozen=True)
class ModelRow:
    """A model. `where` is embedded, cache, copy (ours), damaged, partly (a pull that stopped) or empty.

    `calibrated` is None when the file's hash is not known yet.
    """

    name: str
    where: str
    path: str | None
    bytes: int
    calibrated: bool | None
    parameters: str = ""
    licence: str = ""
    notes: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "here": self.path is not None}


def rows(folders: Paths) -> list[ModelRow]:
    """First those that are here."""
    named = [_named(entry, folders) for entry in registry.entries().values()]
    known = {Path(row.path).resolve() for row in named if row.path}
    others = [_other(found, folders) for found in cache.models() if found.paths[0].resolve() not in known]
    copies = [_copy(path, folders) for path in sorted((folders.data / "models").glob("*.gguf"))]
    return sorted(named + others + copies, key=lambda row: (row.path is None, row.where != "partly"))


def _named(entry: registry.RegistryEntry, folders: Paths) -> ModelRow:
    paths: tuple[Path, ...] = ()
    where = ""
    if entry.embedded:
        if (path := embedded.path()) is not None:
            paths, where = (path,), "embedded"
    elif (found := cache.find(source.Source(entry.repo, entry.revision, entry.file))) is not None:
        paths, where = found, "cache"
    elif cache.unfinished(entry.repo):
        where = "partly"
    row = _row(entry.name, where, paths, folders)
    return replace(row, parameters=entry.parameters, licence=entry.licence, notes=entry.notes)


def _other(found: cache.CachedModel, folders: Paths) -> ModelRow:
    return _row(f"hf:{found.repo}:{found.paths[0].name}", "cache", found.paths, folders)


def _copy(path: Path, folders: Paths) -> ModelRow:
    """One that `models optimize` wrote; its name is its path."""
    return _row(str(path), "copy", (path,), folders)


def _row(name: str, where: str, paths: tuple[Path, ...], folders: Paths) -> ModelRow:
    if not paths:
        return ModelRow(name, where, None, 0, None)
    notes = ""
    try:
        model_kind.check_answers(gguf_header.read_model(paths[0]))
    except NotAChatModelError as error:
        notes = error.kind
    except ModelError:
        where = "damaged"
    digest = file_hash.known_of_model(paths, folders.cache)
    shipped = where == "embedded" and calibrations.find(folders.calibrations, "", embedded=True) is not None
    calibrated = shipped or (None if digest is None else calibrations.find(folders.calibrations, digest) is not None)
    n_bytes = sum(path.stat().st_size for path in paths)
    return ModelRow(name, where, str(paths[0]), n_bytes, calibrated, notes=notes)


def text(rows: list[ModelRow]) -> str:
    """As a table."""
    columns = [
        tables.Column("NAME"),
        tables.Column("HERE"),
        tables.Column("SIZE", right=True),
        tables.Column("CALIBRATED"),
        tables.Column("PARAMETERS", right=True),
        tables.Column("NOTES", rigid=False),
    ]
    return tables.table(
        columns,
        (
            (
                row.name,
                row.where or "-",
                size(row.bytes) if row.bytes else "",
                "" if row.path is None else {True: "yes", False: "no", None: "?"}[row.calibrated],
                row.parameters,
                row.notes,
            )
            for row in rows
        ),
    )
