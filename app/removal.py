"""A model that was fetched is deleted again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from specee.app.errors import USAGE, AppError
from specee.app.formatting import size
from specee.models import cache, resolve


@dataclass(frozen=True)
class Removal:
    """What would be deleted: the files of a model, or what has come of one that is here only partly."""

    name: str
    repo: str
    paths: tuple[Path, ...]
    n_bytes: int

    @property
    def question(self) -> str:
        where = f"in {cache.folder(self.repo)}, which other programs use too"
        return f"Delete {self.name} ({size(self.n_bytes)}, {where})?"

    def run(self) -> int:
        """Deletes, and returns the bytes freed."""
        return cache.remove(self.repo, self.paths)


def find(name: str) -> Removal:
    """The model of this name. Raises errors with a title when it is not here, or not ours to delete."""
    wanted = resolve.interpret(name)
    if wanted.source is None:
        what = "it comes with specee-chat" if wanted.embedded else "it is a file of yours; delete it yourself"
        raise AppError("not ours to delete", f"{name}: {what}", USAGE)
    doomed = cache.find(wanted.source) or cache.unfinished(wanted.source.repo)
    if not doomed:
        raise resolve.NotHere(wanted)
    return Removal(wanted.name, wanted.source.repo, doomed, sum(path.stat().st_size for path in doomed))
