"""One client's connection, whose clients may be slow, silent, half-closed or hostile, in bounded time."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from specee.app.serve.errors import bad_request, error_bytes

MAX_CONNECTIONS = 256
HEAD_SECONDS = 30.0  # from the last answer, or the beginning, to a whole head of a request
STALLED_SECONDS = 60.0  # for which a client may take nothing of its answer
CHECK_SECONDS = 1.0


class Connection(H11Protocol):
    """uvicorn's connection with limits; one whose client has only closed its own direction is answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._half_closed = False
        self._idle_since = self._moved_at = self.loop.time()
        self._unsent = 0  # bytes
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_limits)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. Returns whether the connection stays."""
        self._half_closed = self._is_answering and not self.cycle.more_body
        self._ask_whether_it_listens()
        return self._half_closed

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self._half_closed and not self._is_answering:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """For what is not HTTP."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = error_bytes(bad_request("the request is not HTTP"))
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _check_limits(self) -> None:
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._moved_at = unsent, now
        silent = not self._is_answering and now - self._idle_since > HEAD_SECONDS
        if silent or now - self._moved_at > STALLED_SECONDS:
            self.transport.abort()
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
