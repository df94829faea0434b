"""Whether a model fits into memory, once the one that is loaded now has given its own back."""

from __future__ import annotations

from pathlib import Path

from specee.app import memory
from specee.app.chat.session import Session
from specee.app.errors import AppError
from specee.app.formatting import size
from specee.app.recommend import estimate
from specee.app.recommend.facts import from_header
from specee.models import gguf_header, resolve
from specee.models.errors import ModelError


class DoesNotFitError(AppError):
    """The user is asked before it is loaded."""

    def __init__(self, model: str, needed: int, missing: int) -> None:
        self.model = model
        super().__init__("too little memory", question(Path(model).name, needed, missing))


def question(name: str, needed: int, missing: int) -> str:
    """What the user is asked; sizes in bytes."""
    needs = f"{name} needs {size(needed)} of memory, {size(missing)} more than are free"
    return f"{needs}. Loading it may fail, or slow the whole machine down. Load it anyway?"


def check(model: str, session: Session) -> None:
    """Raises DoesNotFitError; errors with a title where the model is not here or none."""
    free, info = memory.free_ram(), session.info
    if free is None or (info is not None and info.gpu_layers):
        return
    needed = _needed(resolve.resolve(model).path, session)
    if info is not None:
        try:
            free += _needed(Path(info.path), session)
        except ModelError:  # its file has gone meanwhile
            return
    if needed > free:
        raise DoesNotFitError(model, needed, needed - free)


def _needed(path: Path, session: Session) -> int:
    return estimate.needed_memory(from_header(gguf_header.read_model(path)), session.window, session.kv_type)
