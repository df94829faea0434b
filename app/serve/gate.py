"""Who may ask: programs on this machine, or who has the key."""

from __future__ import annotations

import hmac

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from specee.app.serve.addresses import is_safe_name
from specee.app.serve.errors import ApiError, error_response

OPEN = "/health"  # without a key


class Gate:
    """Refuses before anything of the request is read. `key` None: none is asked for."""

    def __init__(self, app: ASGIApp, key: str | None, *, loopback: bool) -> None:
        self._app, self._loopback = app, loopback
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(Request(scope)) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
        else:
            response = await error_response(Request(scope), refused)
            await response(scope, receive, send)

    def _refusal(self, request: Request) -> ApiError | None:
        host = request.headers.get("host")
        if self._loopback and host is not None and not is_safe_name(host):
            return ApiError(403, "forbidden", "only for programs on this machine")
        if self._key is None or request.url.path == OPEN:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # compared in constant time, so that the time tells nothing of the key
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key):
            return None
        return ApiError(401, "no access", "the API key is missing or wrong: Authorization: Bearer KEY")
