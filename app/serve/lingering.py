"""A connection's end that its client gets to read.

A socket that is closed while bytes come in resets the connection, and with it goes the answer that the client has not
read yet, as most clients write their whole request first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_BYTES = 64 << 20  # that are read, and dropped
LINGER_SECONDS = 5.0


class LingeringTransport:
    """A transport that reads on for a while where it is closed in the middle of a request (`unfinished`).

    A second `close` is final. All else is as the transport has it.
    """

    def __init__(self, transport: asyncio.Transport, unfinished: Callable[[], bool]) -> None:
        self._transport, self._unfinished = transport, unfinished
        self._left = LINGER_BYTES
        self._end: asyncio.TimerHandle | None = None
        self.has_eof = False
        """Whether the client has said that nothing more comes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def lingers(self) -> bool:
        """Whether what comes is dropped."""
        return self._end is not None

    @property
    def is_gone(self) -> bool:
        """Whether not even that is read."""
        return self._transport.is_closing()

    def is_closing(self) -> bool:
        return self.lingers or self.is_gone

    def write(self, data: bytes) -> None:
        if not self.lingers:
            self._transport.write(data)

    def close(self) -> None:
        if self.is_closing() or self.has_eof or not self._unfinished():
            if self._end is not None:
                self._end.cancel()
            self._transport.close()
            return
        self._end = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.close)
        self._transport.write_eof()  # after what is still to be sent
        self._transport.resume_reading()

    def drop(self, data: bytes) -> None:
        """What comes while it lingers."""
        self._left -= len(data)
        if self._left < 0:
            self.close()
