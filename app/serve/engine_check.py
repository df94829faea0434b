"""Whether there is an engine that can answer."""

from __future__ import annotations

import asyncio
import math

from specee.app.engine.client import EngineClient
from specee.app.errors import AppError
from specee.app.serve.errors import RETRY_SECONDS

WAIT_SECONDS = 3.0  # for a new engine, which takes longer to load a large model than to say that it cannot


class EngineCheck:
    """Asked by who watches the server. Where the engine is lost, a new one is started, as a request would do."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._attempt: asyncio.Task[None] | None = None
        self._ended_at = -math.inf  # when the last attempt did
        self._error: AppError | None = None  # why it failed

    async def check(self) -> None:
        """Raises AppError where no engine can be started."""
        if self._client.is_open:
            self._error, self._ended_at = None, -math.inf
            return
        now = asyncio.get_running_loop().time()
        if self._attempt is None and now - self._ended_at >= RETRY_SECONDS:
            self._attempt = asyncio.create_task(self._start())
        if self._attempt is not None:
            await asyncio.wait({self._attempt}, timeout=WAIT_SECONDS)
        if self._error is not None:
            raise self._error

    async def _start(self) -> None:
        try:
            await asyncio.to_thread(self._open)
            self._error = None
        except AppError as error:
            self._error = error
        finally:
            self._attempt, self._ended_at = None, asyncio.get_running_loop().time()

    def _open(self) -> None:
        for _ in self._client.open():
            pass
