"""Which models there are, and which of them are here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specee.app.cli import tables
from specee.app.formatting import size
from specee.app.paths import Paths
from specee.models import cache, calibrations, embedded, model_file, registry, source


@dataclass(frozen=True)
class ModelRow:
    """A model. `where` is embedded, cache, copy (ours), partly (a pull that stopped) or empty.

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


def rows(where: Paths) -> list[ModelRow]:
    """First those that are here."""
    named = [_named(entry, where) for entry in registry.entries().values()]
    known = {Path(row.path).resolve() for row in named if row.path}
    others = [_other(found, where) for found in cache.models() if found.paths[0].resolve() not in known]
    copies = [_copy(path, where) for path in sorted((where.data / "models").glob("*.gguf"))]
    return sorted(named + others + copies, key=lambda row: (row.path is None, row.where != "partly"))


def _named(entry: registry.Entry, where: Paths) -> ModelRow:
    paths: tuple[Path, ...] = ()
    place = ""
    if entry.embedded:
        if (path := embedded.path()) is not None:
            paths, place = (path,), "embedded"
    elif (found := cache.find(source.Source(entry.repo, entry.revision, entry.file))) is not None:
        paths, place = found, "cache"
    elif cache.unfinished(entry.repo):
        place = "partly"
    row = _row(entry.name, place, paths, where, embedded=entry.embedded)
    return ModelRow(*row, entry.parameters, entry.licence, entry.notes)


def _other(found: cache.Cached, where: Paths) -> ModelRow:
    return ModelRow(*_row(f"hf:{found.repo}:{found.file}", "cache", found.paths, where))


def _copy(path: Path, where: Paths) -> ModelRow:
    """One that `models optimize` wrote; its name is its path."""
    return ModelRow(*_row(str(path), "copy", (path,), where))


def _row(
    name: str, place: str, paths: tuple[Path, ...], where: Paths, *, embedded: bool = False
) -> tuple[str, str, str | None, int, bool | None]:
    if not paths:
        return name, place, None, 0, None
    digest = model_file.known_sha256(paths[0], where.cache)
    shipped = embedded and calibrations.find(where.calibrations, "", embedded=True) is not None
    calibrated = shipped or (None if digest is None else calibrations.find(where.calibrations, digest) is not None)
    return name, place, str(paths[0]), sum(path.stat().st_size for path in paths), calibrated


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
