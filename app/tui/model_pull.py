"""A model is downloaded while the screen is there."""

from __future__ import annotations

import threading
from collections.abc import Callable

from specee.app import formatting
from specee.app.engine.protocol import Progress
from specee.app.errors import AppError
from specee.models import download, draft_model, split_file
from specee.models.transfer import TransferProgress


class ModelPull:
    """One download, run by a thread. `stop` ends it soon; the part that has arrived is kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.message = ""
        """The notice at the end."""
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self, show: Callable[[Progress], None], *, offline: bool) -> None:
        """Downloads. Raises errors with a title and a message."""

        def on_progress(progress: TransferProgress) -> None:
            if self._stopped.is_set():
                raise AppError("stopped", f"what has arrived is kept; /pull {self.name} resumes the download")
            show(Progress(f"downloading {self.name}: {formatting.transfer(progress)}"))

        path = download.pull(self.name, on_progress, offline=offline)
        n_bytes = sum(part.stat().st_size for part in split_file.files(path))
        self.message = f"{self.name} is downloaded ({formatting.size(n_bytes)}); /model {self.name} switches to it"
        pair = draft_model.paired(self.name)
        if pair is not None and pair.path is None:
            self.message += f"; {pair.name} can draft for it: /pull {pair.name}"
