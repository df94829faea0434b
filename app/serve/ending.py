"""What clients get whose requests are still being answered when the server ends."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from specee.app.serve.errors import error_response, server_ends


class Ending:
    """Answers a request that is cancelled, which happens only then, unless its answer has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if started or scope["type"] != "http":
                raise
            response = await error_response(Request(scope), server_ends())
            await response(scope, receive, send)
