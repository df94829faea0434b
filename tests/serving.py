"""A server over a fake engine, and a plain client."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from specee.app.engine.client import EngineClient, Start
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice
from specee.app.serve.addresses import LOOPBACK, listen
from specee.app.serve.server import Access, Server

Make = Callable[..., Any]
ASK = {"model": "any", "messages": [{"role": "user", "content": "Hi"}]}
PATH = "/v1/chat/completions"


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
    connection = http.client.HTTPConnection(host, server.port, timeout=20)
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
