"""One client's connection, whose clients may be slow, silent, half-closed or hostile, in bounded time."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import h11
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from specee.app.errors import AppError
from specee.app.serve.errors import ApiError, bad_request, error_bytes, error_response, status_of
from specee.app.serve.lingering import LingeringTransport
from specee.app.serve.strict_http import StrictConnection

MAX_CONNECTIONS = 256
NEW_SECONDS = 1.0
HEAD_SECONDS = 30.0  # from the last answer, or the beginning, to a whole head of a request
STALLED_SECONDS = 60.0  # for which a client may take nothing of its answer
CHECK_SECONDS = 1.0


class Connection(H11Protocol):
    """uvicorn's connection with limits; one whose client has only closed its own direction is answered."""

    transport: LingeringTransport  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        lingering = LingeringTransport(transport, lambda: self.conn.their_state in (h11.SEND_BODY, h11.ERROR))
        super().connection_made(lingering)  # type: ignore[arg-type]
        self.conn = self._http = StrictConnection()
        self._half_closed = False
        self._idle_since = self._moved_at = self.loop.time()
        self._unsent = 0  # bytes
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_limits)
        self._make_room()

    def _make_room(self) -> None:
        """Where there are too many, those go that are idle for longest; if that is not enough, this one is refused.

        What has just come has not been read: it may be a request, and stays, unless there are far too many.
        """
        others = [one for one in self.connections if isinstance(one, Connection) and not one._is_gone]
        n = len(others) - 1
        for one in sorted((one for one in others if one is not self and one._is_idle), key=lambda one: one._idle_since):
            is_new = self.loop.time() - one._idle_since < NEW_SECONDS
            if n < (2 * MAX_CONNECTIONS if is_new else MAX_CONNECTIONS):
                break
            one.transport.close()
            n -= 1
        if n >= MAX_CONNECTIONS:
            self.app = _refuse_as_too_many

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.lingers:
            self.transport.drop(data)
        else:
            super().data_received(data)

    def shutdown(self) -> None:
        if self.transport.lingers:
            self.transport.close()
        else:
            super().shutdown()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. Returns whether the connection stays."""
        self.transport.has_eof = True
        if self._is_answering and self.cycle.more_body:
            self._refuse(bad_request("the body is incomplete"))
            return False
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0].strip():
            self._refuse(bad_request("the request is incomplete"))
            return False
        self._half_closed = self._is_answering
        self._ask_whether_it_listens()
        return self._half_closed

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self._half_closed and not self._is_answering:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """For a request that the HTTP library refuses."""
        self._refuse(self._http.refusal)

    def _refuse(self, error: AppError) -> None:
        """Answers a request instead of the application."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = error_bytes(error)
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            status = HTTPStatus(status_of(error))
            response = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self._is_answering:  # its body is what is wrong: for the application, the client has left
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_gone(self) -> bool:
        return self.transport.is_gone

    @property
    def _is_idle(self) -> bool:
        return not self._is_answering and not self.transport.get_write_buffer_size()

    def _check_limits(self) -> None:
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._moved_at = unsent, now
        if now - self._moved_at > STALLED_SECONDS:
            self.transport.abort()
            return
        if not self._is_answering and now - self._idle_since > HEAD_SECONDS:
            if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
                self._refuse(ApiError(408, "too slow", f"the head of the request took more than {HEAD_SECONDS:.0f} s"))
            self.transport.close()
            return
        self._ask_whether_it_listens()
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_limits)

    def _ask_whether_it_listens(self) -> None:
        """A client that has closed its direction may have closed both: then the system refuses what we send.

        What may be sent before an answer, and means nothing, is "100 Continue".
        """
        if self._half_closed and not self.cycle.response_started and self.scope["http_version"] == "1.1":
            event = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self.transport.write(self.conn.send(event) or b"")


async def _refuse_as_too_many(scope: Scope, receive: Receive, send: Send) -> None:
    """An application for a connection too many."""
    error = ApiError(503, "busy", f"{MAX_CONNECTIONS} connections are being answered")
    response = await error_response(Request(scope), error)
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
