"""HTTP/1.1 without what another reader of the same bytes, such as a proxy, may understand otherwise.

Two that disagree on where a request ends let clients smuggle one request in another.
"""

from __future__ import annotations

import re
from typing import Any

import h11

VERSIONS = (b"1.0", b"1.1")
LENGTH = re.compile(rb"^content-length:[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
CODED = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)
FOLDED = re.compile(rb"\n[ \t]")
BARE_LINE_END = re.compile(rb"(?<!\r)\n")


class StrictConnection(h11.Connection):
    """h11's connection of a server, which refuses a request with such a head."""

    refusal: str | None = None
    """Why it did."""

    def next_event(self) -> Any:
        """Raises h11.RemoteProtocolError."""
        before = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        event = super().next_event()
        if isinstance(event, h11.Request):
            head = before[: len(before) - len(self.trailing_data[0])]
            self.refusal = _ambiguity(head, event.http_version)
            if self.refusal is not None:
                raise h11.RemoteProtocolError(self.refusal)
        return event


def _ambiguity(head: bytes, version: bytes) -> str | None:
    """What may be understood in two ways."""
    lengths, is_coded = LENGTH.findall(head), CODED.search(head) is not None
    if version not in VERSIONS:
        return "only HTTP/1.1 is spoken here"
    if FOLDED.search(head):
        return "a header goes on in the next line"
    if BARE_LINE_END.search(head):
        return "a line must end with CR and LF"
    if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
        return "there must be one Content-Length, a number"
    if is_coded and lengths:
        return "Content-Length and Transfer-Encoding exclude each other"
    if is_coded and version == b"1.0":
        return "HTTP/1.0 has no Transfer-Encoding"
    return None
