"""HTTP/1.1 without what another reader of the same bytes, such as a proxy, may understand otherwise.

Two that disagree on where a request ends let clients smuggle one request in another.
"""

from __future__ import annotations

import re
from typing import Any

import h11

from specee.app.serve.errors import ApiError, bad_request

MAX_HEAD = 1 << 16  # bytes of a request
VERSIONS = (b"1.0", b"1.1")
LENGTH = re.compile(rb"^content-length:[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
CODED = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)
FOLDED = re.compile(rb"\n[ \t]")
BEGINNING = re.compile(rb"[!-~]{1,32} [!-~]")  # a method and a target
TOO_LONG = 431
BARE_LINE_END = re.compile(rb"(?<!\r)\n")


class StrictConnection(h11.Connection):
    """h11's connection of a server, which refuses a request with such a head, and one that is too long."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD)
        self.refusal = bad_request("the request is not HTTP")
        """What is wrong, once something is."""

    def next_event(self) -> Any:
        """Raises h11.RemoteProtocolError."""
        before = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == TOO_LONG:
                self.refusal = _too_long(before)
            raise
        if isinstance(event, h11.Request):
            head = before[: len(before) - len(self.trailing_data[0])]
            refusal = _too_long(head) if len(head) > MAX_HEAD else _ambiguous(head, event.http_version)
            if refusal is not None:
                self.refusal = refusal
                raise h11.RemoteProtocolError(refusal.message)
        return event


def _too_long(head: bytes) -> ApiError:
    """What of it is; no head where the body has begun."""
    if not head:
        return bad_request("a line between the chunks of the body is too long")
    line, end, _ = head[:MAX_HEAD].partition(b"\n")
    if end:
        return ApiError(TOO_LONG, "too large", f"the head of a request may have {MAX_HEAD >> 10} KiB")
    if BEGINNING.match(line) is None:
        return bad_request("the request is not HTTP")
    return ApiError(414, "too large", f"a URL and the head around it may have {MAX_HEAD >> 10} KiB")


def _ambiguous(head: bytes, version: bytes) -> ApiError | None:
    why = _ambiguity(head, version)
    return None if why is None else bad_request(f"the request is ambiguous: {why}")


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
