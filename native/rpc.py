"""Workers: devices of other machines over llama.cpp's RPC back end, and this machine's devices for others.

Nothing is encrypted, and whoever reaches a worker may use it: for trusted networks only.
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from specee.native.endpoint import Endpoint
from specee.native.errors import DeviceError, WrongUseError

PROTOCOL = (7, 0, 0)  # RPC_PROTO_*_VERSION of ggml-rpc.h
TIMEOUT_S = 5.0
RETRY_S = 0.2
ASK_S, MOST_SILENT = 5.0, 3
"""A worker in use is asked so often whether it is there, and is lost when it gives no answer to so many in a row: a
machine that swaps may be silent for some seconds. Asks are counted, not seconds: this machine may have slept."""
_GREETS, _BUSY, _ASKS = 1, 2, b"is it there?"  # of src/rpc_reception.h
_HELLO, _CAPS = 14, 24  # RPC_CMD_HELLO, RPC_CONN_CAPS_SIZE
_NAME = b"RPC"
_LOST = re.compile(r"lost the worker at (\S+)|Failed to connect to (\S+)|handshake failed for (\S+)")


class _Greeting(NamedTuple):
    """What a worker says of itself. `state`: _GREETS, _BUSY, or 0 of llama.cpp's own, which are silent while they serve
    somebody."""

    version: tuple[int, ...]
    state: int


def check(endpoint: Endpoint, timeout: float = TIMEOUT_S) -> str:
    """Greets a worker, and returns its address as llama.cpp takes it.

    Raises DeviceError: llama.cpp itself would end the process, or wait without end.
    """
    until = time.monotonic() + timeout
    try:
        address = _address(endpoint)
        while (greeting := _greeting(address, timeout)) is not None and greeting.state == _BUSY:
            if time.monotonic() > until:
                why = "another program uses it, and it serves one at a time; end that one, or start a second worker"
                raise no_worker(endpoint, why)
            time.sleep(RETRY_S)  # it may not have noticed yet that the last program has ended
    except ConnectionRefusedError:
        raise no_worker(endpoint, "nothing listens there; 'specee-chat worker' on that machine starts one") from None
    except TimeoutError:
        why = f"no answer within {timeout:.0f} s: it is switched off or stopped, or another program uses it"
        raise no_worker(endpoint, why) from None
    except OSError as error:
        raise no_worker(endpoint, error.strerror or str(error)) from None
    if greeting is None:
        raise no_worker(endpoint, "what listens there is no worker of this version; check the port, and the version")
    if greeting.version != PROTOCOL:
        theirs, ours = (".".join(map(str, numbers)) for numbers in (greeting.version, PROTOCOL))
        why = f"it speaks version {theirs} of the RPC protocol, this program {ours}; install the same version on both"
        raise no_worker(endpoint, why)
    found = f"{address[0]}:{address[1]}"
    _known[found] = _Known(str(endpoint), greeting.state == _GREETS)
    return found


def no_worker(endpoint: Endpoint | str, why: str) -> DeviceError:
    return DeviceError(f"no worker at {endpoint}", why, worker=str(endpoint))


def resolve(endpoints: Sequence[Endpoint]) -> None:
    """Raises WrongUseError where two of them are one worker, DeviceError where a name is of none."""
    seen: dict[tuple[str, int], Endpoint] = {}
    for endpoint in endpoints:
        if (known := seen.setdefault(_address(endpoint), endpoint)) is not endpoint:
            raise WrongUseError("the same worker twice", f"{known} and {endpoint} are one; name it once")


def _address(endpoint: Endpoint) -> tuple[str, int]:
    """llama.cpp's sockets are IPv4's. Raises DeviceError."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, socket.AF_INET, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        why = f"no IPv4 address is known of {endpoint.host}; check the name, or give the address itself"
        raise no_worker(endpoint, why) from None
    host, port = found[0][4][:2]
    return str(host), int(port)


def _greeting(address: tuple[str, int], timeout: float) -> _Greeting | None:
    """What listens there says when it is greeted; None: it is no worker."""
    with socket.create_connection(address, timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(struct.pack("<BQ", _HELLO, _CAPS) + _ASKS.ljust(_CAPS, b"\0"))
        expected = 4 + _CAPS
        answer = b""
        while len(answer) < 8 + expected:
            try:
                part = connection.recv(8 + expected - len(answer))
            except ConnectionResetError:
                return None
            answer += part
            if not part or (len(answer) >= 8 and answer[:8] != struct.pack("<Q", expected)):
                return None
    return _Greeting(tuple(answer[8:11]), answer[11])


def add(address: str) -> list[Any]:
    """Handles of the devices of the worker at this address, which `check` has returned. Raises DeviceError."""
    from specee.native import ggml

    found = ggml.load()
    add_server = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(_function(b"ggml_backend_rpc_add_server"))
    registry = add_server(address.encode())
    if not registry:
        raise no_worker(_known[address].name, "it has no devices")
    if _tell is not None and _known[address].greets:
        threading.Thread(target=watch, args=(address, _tell), daemon=True).start()
    return [found.backend_reg_dev_get(registry, i) for i in range(found.backend_reg_dev_count(registry))]


Told = Callable[[DeviceError], object]


class _Known(NamedTuple):
    """A worker that was greeted: its endpoint as the user wrote it, and whether it can be asked at any time."""

    name: str
    greets: bool


_known: dict[str, _Known] = {}  # by their addresses
_callback: Any = None  # the library keeps its address only
_tell: Told | None = None


def tell_of_loss(tell: Told) -> None:
    """Whom to tell when a worker is gone while it is used: llama.cpp's thread of the connection tells it, and then ends
    the process. To be called when the library is loaded."""
    global _callback, _tell
    from specee.native import library

    def aborted(message: bytes) -> None:
        text = message.decode("utf-8", "replace")
        print(text, file=sys.stderr, flush=True)  # as without a callback
        if (lost := _LOST.search(text)) is not None:
            tell(_lost(next(filter(None, lost.groups())), "it was ended, or the network fails"))

    _tell = tell
    _callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(aborted)
    library.load().ggml_set_abort_callback(_callback)


def _lost(address: str, why: str) -> DeviceError:
    where = _known[address].name if address in _known else address
    return DeviceError(f"lost the worker at {where}", why, worker=where)


def watch(address: str, tell: Told, ask_s: float = ASK_S) -> None:
    """Asks a worker that greets whether it is there as long as it is, and then tells it. One that computes answers as
    well, from a thread of its own: silent is only a process that is stopped, or a machine that is gone."""
    silent = 0
    host, _, port = address.rpartition(":")
    while silent < MOST_SILENT:
        time.sleep(ask_s)
        try:
            _greeting((host, int(port)), ask_s)
            silent = 0
        except TimeoutError:
            silent += 1
        except OSError:  # of this machine, or the worker has ended: then its connection tells it
            pass
    tell(_lost(address, "it does not answer any more: it was stopped, or its machine hangs"))


def _function(name: bytes) -> int:
    from specee.native import ggml

    found = ggml.load()
    registry = found.backend_reg_by_name(_NAME)
    address = found.backend_reg_get_proc_address(registry, name) if registry else None
    if not address:
        raise DeviceError("no workers in this build", "it was made without GGML_RPC; install specee-chat again")
    return int(address)


def free_port(host: str, port: int) -> Endpoint:
    """Where a worker can listen; `port` 0: any. Raises DeviceError."""
    wanted = Endpoint(host, port)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(_address(wanted))
            return Endpoint(*tried.getsockname())
    except DeviceError:
        raise DeviceError("cannot listen", f"no IPv4 address is known of {host}") from None
    except OSError as error:
        raise DeviceError("cannot listen", f"{wanted}: {error.strerror or error}") from None


def serve(endpoint: Endpoint, devices: Sequence[Any], n_threads: int, on_ready: Callable[[], object]) -> None:
    """Lets other programs compute on devices (handles), one program at a time; `on_ready`: once it listens.

    Returns only if it cannot; an interrupt leaves it, and the process must end then. It prints on descriptor 1.
    """
    handles = (ctypes.c_void_p * len(devices))(*devices)
    kinds = (None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
    start = ctypes.CFUNCTYPE(*kinds)(_function(b"ggml_backend_rpc_start_server"))
    arguments = (str(endpoint).encode(), None, n_threads, len(devices), ctypes.addressof(handles))
    server = threading.Thread(target=start, args=arguments, daemon=True)  # signals reach Python's main thread only
    server.start()
    is_ready = False
    asked = Endpoint("127.0.0.1", endpoint.port) if endpoint.host == "0.0.0.0" else endpoint
    while server.is_alive() and not is_ready:
        try:
            check(asked)
            is_ready = True
            on_ready()
        except DeviceError:  # it does not listen yet
            time.sleep(0.02)
    server.join()
