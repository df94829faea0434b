"""Who may ask: programs on this machine, or who has the key."""

from __future__ import annotations

import hmac
import re
from urllib.parse import unquote

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from specee.app.serve.addresses import host_of, is_safe_name
from specee.app.serve.errors import ApiError, bad_request, error_response

OPEN = "/health"  # without a key
URL = re.compile(r"https?://([^/]*)(/.*)?", re.IGNORECASE)


class Gate:
    """Refuses before anything of the request is read. `key` None: none is asked for."""

    def __init__(self, app: ASGIApp, key: str | None, *, loopback: bool) -> None:
        self._app, self._loopback = app, loopback
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                scope = self._checked(scope)
            except ApiError as error:
                response = await error_response(Request(scope), error)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _checked(self, scope: Scope) -> Scope:
        """The request with a path as its target. Raises ApiError."""
        headers = Request(scope).headers
        hosts = headers.getlist("host")
        target = scope["raw_path"].decode("ascii")
        if url := URL.fullmatch(target):  # as a proxy is asked
            hosts, target = [*hosts, url[1]], url[2] or "/"
            scope = {**scope, "path": unquote(target), "raw_path": target.encode()}
        elif not target.startswith("/") and not (target == "*" and scope["method"] == "OPTIONS"):
            raise bad_request("the target of a request is a path, or a URL of this server")
        for host in map(host_of, hosts):
            if host is None:
                raise bad_request("the Host of a request is a name or an address, and a port")
            if self._loopback and not is_safe_name(host):
                raise ApiError(403, "forbidden", "only for programs on this machine")
        if self._key is None or scope["path"] == OPEN:
            return scope
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # compared in constant time, so that the time tells nothing of the key
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key):
            return scope
        raise ApiError(401, "no access", "the API key is missing or wrong: Authorization: Bearer KEY")
