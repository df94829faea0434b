"""Where the server listens, and by which names it may be called there."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress

from specee.app.errors import USAGE, AppError
from specee.app.settings import shown

LOCALHOST = "localhost"
LOOPBACK = ("127.0.0.1", "::1")
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # a machine without IPv6
FREE_PORT_TRIES = 20
BACKLOG = 128
AUTHORITY = re.compile(r"(\[[0-9a-f:.]+(?:%[\w.~-]+)?\]|[\w.~-]+)(?::[0-9]{0,5})?", re.IGNORECASE | re.ASCII)
NUMERIC = re.compile(r"[0-9a-fx.]+")


def addresses_of(host: str) -> tuple[str, ...]:
    """The addresses of a host's name. Raises AppError when it has none."""
    if host == LOCALHOST:
        return LOOPBACK
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise AppError(
            "cannot listen", f"the host {shown(host)} is not known; choose another with --host", USAGE
        ) from error
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def is_loopback(addresses: Iterable[str]) -> bool:
    """Whether only programs on this machine reach all of them."""
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)


def host_of(authority: str) -> str | None:
    """The name or address in a Host header, in lower case and without the dot at its end; None when it is none."""
    match = AUTHORITY.fullmatch(authority)
    return None if match is None else match[1].lower().removesuffix(".")


def is_safe_name(host: str) -> bool:
    """Whether the host of a request to the loopback (see host_of) is not that of a web page, which got here by DNS
    rebinding.

    Such a page has a name of its own: numeric addresses are safe.
    """
    if host == LOCALHOST or host.endswith(f".{LOCALHOST}"):
        return True
    with suppress(ValueError, OSError):
        if host.startswith("["):
            return bool(ipaddress.IPv6Address(host[1:-1].partition("%")[0]))
        return NUMERIC.fullmatch(host) is not None and bool(socket.inet_aton(host))  # 127.1 is one, too
    return False


def listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets that accept connections, all at one port; port 0 takes one that is free. Raises AppError."""
    for _ in range(FREE_PORT_TRIES - 1):
        with suppress(OSError):
            return _listen(addresses, port)
        if port:
            break
    try:
        return _listen(addresses, port)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise AppError("cannot listen", f"port {port}: {why}; choose another with --port") from error


def _listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for address in addresses:
            try:
                sockets.append(_bound(address, sockets[0].getsockname()[1] if sockets else port))
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
        for one in sockets:
            one.listen(BACKLOG)
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made
