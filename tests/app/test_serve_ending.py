"""What clients get when the server ends while it answers."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from serving import ASK, PATH, Make, request, running

from specee.app.options import PolicyChoice
from specee.app.serve.server import Server


@pytest.fixture
def held(make_backend: Make, make_link: Make) -> Iterator[tuple[Server, threading.Event]]:
    """A server whose answers are in the middle until the event is set."""
    backend, gate = make_backend(n_ctx=200, n_slots=2), threading.Event()
    policy = backend.policies["exact"] = make_backend().policy(PolicyChoice("exact"))
    policy.delay = lambda index: index == 3 and gate.wait(200)
    with running(backend, make_link) as server:
        yield server, gate
        gate.set()


def begin(server: Server, body: Any, length: int | None = None) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    text = json.dumps(body)
    headers = {"Content-Type": "application/json", "Content-Length": str(length or len(text))}
    taken = len(server._server.server_state.tasks)
    connection.request("POST", PATH, text, headers)
    until = time.monotonic() + 60
    while len(server._server.server_state.tasks) == taken:
        assert time.monotonic() < until
        time.sleep(0.01)
    return connection


@pytest.mark.parametrize("kind", ["answered", "waiting", "receiving"])
def test_an_answer_in_one_piece_becomes_503(held: tuple[Server, threading.Event], kind: str) -> None:
    server, _ = held
    others = [begin(server, ASK) for _ in range(2 if kind == "waiting" else 0)]
    with closing(begin(server, ASK, 10_000 if kind == "receiving" else None)) as connection:
        server.stop()
        response = connection.getresponse()
        assert response.status == 503 and int(response.headers["Retry-After"]) > 0
        error = json.loads(response.read())["error"]
        assert "server ends" in error["message"] and error["type"] == "server_error"
        with pytest.raises(ConnectionError):
            request(server, "GET", "/health")
    for other in others:
        assert other.getresponse().status == 503
        other.close()


def test_a_stream_ends_with_an_error(held: tuple[Server, threading.Event]) -> None:
    server, _ = held
    with closing(begin(server, {**ASK, "stream": True})) as connection:
        response = connection.getresponse()
        assert response.status == 200 and response.readline().startswith(b"data: {")
        server.stop()
        *_, error, done, _ = response.read().split(b"\n\n")
        assert "server ends" in json.loads(error.removeprefix(b"data: "))["error"]["message"]
        assert done == b"data: [DONE]"


def test_an_answer_that_is_nearly_complete_is_given(held: tuple[Server, threading.Event]) -> None:
    server, gate = held
    with closing(begin(server, ASK)) as connection:
        threading.Timer(0.3, gate.set).start()
        server.stop()
        assert connection.getresponse().status == 200
