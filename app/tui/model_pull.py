"""A model is downloaded beside the chat, with what drafts for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from textual.message import Message

from specee.app import error_log, formatting, model_download
from specee.app.errors import AppError
from specee.models.transfer import TransferProgress


class PullChanged(Message):
    """A download has come further. One such message in the queue is enough."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, PullChanged)


class PullEnded(Message):
    """It is over, after an error or not."""

    def __init__(self, error: AppError | None = None) -> None:
        super().__init__()
        self.error = error


class ModelPull:
    """One download, in a thread of its own. `stop` ends it soon; the part that has arrived is kept.

    `drafter`: what the registry pairs the model with is fetched, too. `then_use`: the user wants the model to answer
    once it is here. `typed`: the command that asked for it.
    """

    def __init__(self, name: str, *, drafter: bool = False, then_use: bool = False, typed: str = "") -> None:
        self.name, self.then_use, self.typed = name, then_use, typed
        self.activity = f"looking for {name}"
        """What it does, for the status line."""
        self.share: float | None = None
        """How much of the file under way is here; None before the hub has said how large it is."""
        self.message = ""
        """The notice at the end."""
        self._drafter = drafter
        self._stopped = threading.Event()

    def start(self, post: Callable[[Message], object], logs: Path, *, offline: bool) -> None:
        """Downloads; `post` is called from its thread. Nobody waits for it when the program ends: what has arrived is
        on the disk."""
        threading.Thread(target=self._run, args=(post, logs, offline), daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def _run(self, post: Callable[[Message], object], logs: Path, offline: bool) -> None:
        try:
            self._download(post, offline)
        except Exception as error:
            post(PullEnded(error_log.told(error, logs)))
        else:
            post(PullEnded())

    def _download(self, post: Callable[[Message], object], offline: bool) -> None:
        """Raises errors with a title and a message."""

        def show(name: str, progress: TransferProgress) -> None:
            if self._stopped.is_set():
                raise model_download.stopped(self.name)
            self.activity, self.share = f"downloading {name}: {formatting.transfer(progress)}", progress.fraction
            post(PullChanged())

        self.message = model_download.fetch(
            self.name, show, offline=offline, with_drafter=self._drafter, then_use=self.then_use
        )
