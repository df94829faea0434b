"""The body of a request, in bounded memory and time."""

from __future__ import annotations

import asyncio
from email.message import Message

from starlette.requests import ClientDisconnect, Request

from specee.app.serve.errors import ApiError, bad_request

BODY_LIMIT = 4 << 20  # bytes of one body
HELD_LIMIT = 32 << 20  # bytes of all that are being received
BODY_SECONDS = 60.0  # that a client may take to send one
UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")


class BodyReader:
    """Reads bodies for all requests of a server."""

    def __init__(self) -> None:
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """The whole body. Raises ApiError for what is too large, too slow or of another kind."""
        if not _is_json(request.headers.get("content-type", "")):  # this also keeps out forms of web pages
            raise ApiError(415, "bad request", "the content type must be application/json, in UTF-8")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "bad request", "the body must not be compressed")
        length = request.headers.get("content-length", "0")
        if int(length) > BODY_LIMIT:  # the HTTP library has checked that it is a number
            raise _too_large()
        body = bytearray()
        try:
            await asyncio.wait_for(self._receive(request, body), BODY_SECONDS)
        except asyncio.TimeoutError as error:
            raise ApiError(408, "too slow", f"the body took more than {BODY_SECONDS:.0f} s") from error
        except ClientDisconnect as error:
            raise bad_request("the body is incomplete") from error
        finally:
            self._held -= len(body)
        return bytes(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        async for chunk in request.stream():
            self._held += len(chunk)
            body += chunk
            if len(body) > BODY_LIMIT:
                raise _too_large()
            if self._held > HELD_LIMIT:
                raise ApiError(503, "busy", "other requests are being received")


def _is_json(content_type: str) -> bool:
    """Whether that is JSON in UTF-8. Other parameters mean nothing (RFC 8259), and are given by some clients."""
    message = Message()
    message["Content-Type"] = content_type
    charset = message.get_param("charset", "utf-8")
    return message.get_content_type() == "application/json" and str(charset).lower() in UTF_8


def _too_large() -> ApiError:
    return ApiError(413, "too large", f"a body may have {BODY_LIMIT >> 20} MiB")
