"""A model is fetched for a chat, with what drafts for it, if that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from specee.app.errors import AppError
from specee.app.formatting import size
from specee.models import download, draft_model, split_file
from specee.models.transfer import TransferProgress

Show = Callable[[str, TransferProgress], object]
"""Takes the name of the model under way, and how far it is."""


def stopped(name: str) -> AppError:
    """What a user is told who stopped it."""
    return AppError("stopped", f"what has arrived is kept; /pull {name} resumes the download")


def fetch(name: str, show: Show, *, offline: bool, with_drafter: bool = False, then_use: bool = False) -> str:
    """Fetches a model and returns what to say of it. What `show` raises ends it; the part that has arrived is kept.

    `then_use`: the user need not be told how to use it. Raises errors with a title and a message.
    """

    def pull(name: str) -> Path:
        def on_progress(progress: TransferProgress) -> None:
            show(name, progress)

        return download.pull(name, on_progress, offline=offline)

    path = pull(name)
    pair = draft_model.paired(name)
    missing = pair.name if pair is not None and pair.path is None else None
    if with_drafter and missing is not None:
        pull(missing)
    drafter = "" if missing is None else f" with its drafter {missing}" if with_drafter else ""
    n_bytes = sum(part.stat().st_size for part in split_file.files(path))
    message = f"{name} is downloaded ({size(n_bytes)}){drafter}"
    if not then_use:
        message += f"; /model {name} switches to it"
    if missing is not None and not with_drafter:
        message += f"; {missing} can draft for it: /pull {missing}"
    return message
