"""Which models there are, and which of them are here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from specee.app import model_catalogue
from specee.app.cli import tables
from specee.app.formatting import size
from specee.app.model_catalogue import CatalogueModel
from specee.app.paths import Paths
from specee.models import calibrations, gguf_header, model_hash, model_kind
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
    found = [_row(model, folders) for model in model_catalogue.models(folders)]
    return sorted(found, key=lambda row: (row.path is None, row.where != "partly"))


def _row(model: CatalogueModel, folders: Paths) -> ModelRow:
    entry = model.entry
    row = ModelRow(model.name, model.where, None, 0, None)
    if entry is not None:
        row = replace(row, parameters=entry.parameters, licence=entry.licence, notes=entry.notes)
    if not model.here:
        return row
    where, path = model.where, model.paths[0]
    try:
        model_kind.check_answers(gguf_header.read_model(path))
    except NotAChatModelError as error:
        row = replace(row, notes=error.kind)
    except ModelError:
        where = "damaged"
    digest = model_hash.known(model.paths, folders.cache)
    shipped = where == "embedded" and calibrations.find(folders.calibrations, "", embedded=True) is not None
    calibrated = shipped or (None if digest is None else calibrations.find(folders.calibrations, digest) is not None)
    return replace(row, where=where, path=str(path), bytes=model.n_bytes, calibrated=calibrated)


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
