"""Where a worker listens, as users write it."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_PORT = 50052  # as llama.cpp's own workers have it


class Endpoint(NamedTuple):
    """Where a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Endpoint:
    """HOST:PORT, with brackets around an IPv6 address. Raises ValueError."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "[" in host:
        raise ValueError(text)
    if not (colon and host and host.isprintable() and " " not in host and port.isascii() and port.isdigit()):
        raise ValueError(text)
    if not 0 < int(port) < 1 << 16:
        raise ValueError(text)
    return Endpoint(host, int(port))
