"""Where workers listen, as users write it."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_PORT = 50052  # as llama.cpp's own workers have it
SHOWN_CHARACTERS = 40  # of what is refused


class BadEndpointError(ValueError):
    """What is wrong with an endpoint, for the user: a line."""


class Endpoint(NamedTuple):
    """Where a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse(text: str) -> Endpoint:
    """HOST:PORT, where HOST is a name or an IPv4 address: llama.cpp's sockets have no other ones.

    Raises BadEndpointError.
    """
    text = text.strip()
    if not text:
        raise BadEndpointError("a worker is missing; give HOST:PORT, and a comma between two")
    shown = repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")
    if "://" in text or "/" in text:
        raise BadEndpointError(f"{shown} is more than HOST:PORT, such as 192.168.1.20:50052")
    if text.count(":") > 1 or "[" in text:
        raise BadEndpointError(f"{shown}: workers have IPv4 only; give HOST:PORT with a name or an IPv4 address")
    host, colon, port = text.partition(":")
    if not colon:
        raise BadEndpointError(f"{shown} has no port; give HOST:PORT (workers listen at {DEFAULT_PORT})")
    if not host or not host.isprintable() or " " in host:
        raise BadEndpointError(f"{shown} has no machine; give HOST:PORT with a name or an IPv4 address")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16):
        raise BadEndpointError(f"{shown}: the port of HOST:PORT is a number from 1 to 65535")
    return Endpoint(host, int(port))


def parse_all(text: str) -> list[Endpoint]:
    """Several, with commas between them, each once. Raises BadEndpointError."""
    found = [parse(part) for part in text.split(",")]
    for one in found:
        if found.count(one) > 1:
            raise BadEndpointError(f"{one} is there twice; name each once")
    return found
