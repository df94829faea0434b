"""A server over a fake engine, and plain clients."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from specee.app.engine.client import EngineClient, Start
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice
from specee.app.serve.addresses import LOOPBACK, listen
from specee.app.serve.server import Access, Server

Make = Callable[..., Any]
ASK = {"model": "any", "messages": [{"role": "user", "content": "Hi"}]}
PATH = "/v1/chat/completions"
HOST = "Host: localhost\r\n"
HEAD = f"POST {PATH} HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n"
CODED = "Transfer-Encoding: chunked\r\n"


@contextmanager
def running(backend: Any, make_link: Make, *, start: Start | None = None, **access: Any) -> Iterator[Server]:
    """A server in a thread. `start`: what gives it its engine, otherwise a link to the backend."""
    client = EngineClient(LoadOptions(), start or (lambda load: make_link(backend)))
    for _ in client.open():
        pass
    server = Server(client, ChatOptions(PolicyChoice("exact")), Access(0, **access), listen(LOOPBACK, 0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        client.close()


def request(
    server: Server, method: str, path: str, body: Any = None, host: str = "127.0.0.1", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """The response to one request, and its body."""
    connection = http.client.HTTPConnection(host, server.port, timeout=60)
    text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
    kind = {} if body is None else {"Content-Type": "application/json"}
    try:
        connection.request(method, path, text, {**kind, **{k.replace("_", "-"): v for k, v in headers.items()}})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def call(server: Server, body: Any, path: str = PATH, **headers: str) -> tuple[int, Any]:
    """The status and the object that answer a POST."""
    response, text = request(server, "POST", path, body, **headers)
    return response.status, json.loads(text)


def text_of(answer: Any) -> str:
    """What the model said."""
    return str(answer["choices"][0]["message"]["content"])


def connect(server: Server, timeout: float = 60.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout)


def read_all(client: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while data := client.recv(1 << 16):
            received += data
    return received


def exchange(server: Server, sent: str | bytes, *, half_close: bool = False) -> bytes:
    """All that comes back for some bytes, until the server closes."""
    with connect(server) as client:
        with suppress(ConnectionError):
            client.sendall(sent.encode() if isinstance(sent, str) else sent)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        return read_all(client)


def post(body: Any = ASK, headers: str = "Connection: close\r\n") -> str:
    text = json.dumps(body)
    return f"{HEAD}{headers}Content-Length: {len(text.encode())}\r\n\r\n{text}"


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def holding(backend: Any) -> threading.Event:
    """No prompt is read before this is set."""
    gate = threading.Event()
    for engine in backend.engine.slots:
        engine.before_chunk = lambda done: gate.wait(200) and None
    return gate


def is_free(server: Server) -> bool:
    return bool(server.answers.places._value == server.answers.limit)
