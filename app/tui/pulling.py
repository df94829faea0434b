"""A model is fetched while the screen is there."""

from __future__ import annotations

import threading
from collections.abc import Callable

from specee.app import formatting
from specee.app.engine.protocol import Progress
from specee.app.errors import AppError
from specee.models import download
from specee.models.transfer import TransferProgress


class Pull:
    """One transfer, run by a thread: `stop` ends it soon, and what has come is kept."""

    def __init__(self, name: str) -> None:
        self.name, self.told = name, ""
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self, show: Callable[[Progress], None], *, offline: bool) -> None:
        """Fetches; `told` is then what to say about it. Raises errors with a title and a message."""

        def on_progress(progress: TransferProgress) -> None:
            if self._stopped.is_set():
                raise AppError("stopped", f"what has come is kept; /pull {self.name} goes on from there")
            show(Progress(f"fetching {self.name}: {formatting.transfer(progress)}"))

        path = download.pull(self.name, on_progress, offline=offline)
        self.told = f"{self.name} is here, {formatting.size(path.stat().st_size)}; /model {self.name} answers with it"
