"""The connections of clients that are slow, silent, half-closed, hostile, or many."""

from __future__ import annotations

import json
import logging
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from serving import (
    ASK,
    CODED,
    HEAD,
    HOST,
    PATH,
    Make,
    call,
    connect,
    exchange,
    holding,
    is_free,
    post,
    read_all,
    request,
    running,
    wait_until,
)

from specee.app.serve import body as bodies
from specee.app.serve import completion, lingering
from specee.app.serve import connection as connections
from specee.app.serve.server import Server


@pytest.fixture
def backend(make_backend: Make) -> Any:
    return make_backend(n_ctx=200, n_slots=3)


@pytest.fixture
def server(backend: Any, make_link: Make, caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    """It logs no error."""
    with running(backend, make_link) as made:
        yield made
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not errors, errors[0].getMessage()


def answered(clients: list[socket.socket]) -> list[socket.socket]:
    """Those for which something has come."""
    return select.select(clients, [], [], 0)[0]


# ---- how a client may come and go ------------------------------------------------------------------------------------


def test_a_client_may_close_its_direction(server: Server, backend: Any) -> None:
    for body in (ASK, {**ASK, "stream": True}):
        for headers in ("", "Connection: close\r\n"):
            received = exchange(server, post(body, headers), half_close=True)
            assert b"HTTP/1.1 200 OK" in received
            assert received.endswith((b"data: [DONE]\n\n", b"0\r\n\r\n", b"}"))
    with_1_0 = post(headers="").replace("HTTP/1.1", "HTTP/1.0")
    assert exchange(server, with_1_0, half_close=True).startswith(b"HTTP/1.1 200 OK")
    two = post(headers="") + f"GET /health HTTP/1.1\r\n{HOST}\r\n"
    assert exchange(server, two, half_close=True).count(b"200 OK") == 2


@pytest.mark.parametrize("abort", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_closes_both_directions_has_left(server: Server, backend: Any, abort: bool, stream: bool) -> None:
    gate = holding(backend)
    client = connect(server)
    client.sendall(post({**ASK, "stream": stream}, "").encode())
    wait_until(lambda: not is_free(server))
    if abort:  # RST instead of FIN
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_until(lambda: len(server._server.server_state.connections) == 0)
    gate.set()
    wait_until(lambda: is_free(server))
    assert call(server, ASK)[0] == 200


def test_a_client_that_leaves_in_the_middle_of_its_request(server: Server) -> None:
    whole = post()
    for end in (5, len(HEAD), whole.index("\r\n\r\n") + 4, len(whole) - 1):
        received = exchange(server, whole[:end], half_close=True)
        assert received.startswith(b"HTTP/1.1 400 ") and b"is incomplete" in received
    assert b"the body is incomplete" in exchange(server, f"{HEAD}Content-Length: 100\r\n\r\n{{}}", half_close=True)
    assert b"the body is incomplete" in exchange(server, f"{HEAD}{CODED}\r\n2\r\n{{}}\r\n", half_close=True)
    assert exchange(server, "", half_close=True) == b""
    wait_until(lambda: len(server._server.server_state.connections) == 0)
    assert is_free(server) and call(server, ASK)[0] == 200


def test_expect_100_continue_and_pipelining(server: Server) -> None:
    text = json.dumps(ASK)
    with connect(server) as client:
        client.sendall(f"{HEAD}Expect: 100-continue\r\nContent-Length: {len(text)}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(text.encode())
        assert b"200 OK" in client.recv(1 << 16)
    get = f"GET /health HTTP/1.1\r\n{HOST}\r\n"
    last = f"GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
    assert exchange(server, get + post(headers="") + get + last).count(b"200 OK") == 4


def test_a_body_that_breaks_while_its_request_is_being_answered(server: Server) -> None:
    """One answer, and none after it (the server's log stays empty)."""
    for body in ('5\r\n{"a":\r\nzz\r\n', "5\r\nhelloXX", "zz\r\n"):
        for end in range(len(body)):  # so that the request is taken before the error is there
            with connect(server) as client:
                client.sendall(f"{HEAD}{CODED}\r\n{body[:end]}".encode())
                time.sleep(0.002)
                client.sendall(body[end:].encode())
                assert read_all(client).count(b"HTTP/1.1 400") == 1


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["close", "keep-alive"])
def test_a_client_that_writes_all_before_it_reads(server: Server, kind: str) -> None:
    """It gets its refusal, whatever that is."""
    size = 3 * bodies.BODY_LIMIT
    for head, status in (
        (f"{HEAD}Content-Length: {size}\r\n", 413),
        (f"{HEAD}Transfer-Encoding: chunked\r\n", 413),
        (f"POST /nothing HTTP/1.1\r\n{HOST}Content-Length: {size}\r\n", 404),
        (f"POST {PATH} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {size}\r\n", 403),
        (f"{HEAD}Content-Length: {size}\r\nContent-Length: 1\r\n", 400),
    ):
        chunked = f"{size:x}\r\n" if "chunked" in head else ""
        with connect(server) as client:
            client.sendall(f"{head}Connection: {kind}\r\n\r\n{chunked}{'x' * size}".encode())
            assert client.recv(100).startswith(f"HTTP/1.1 {status}".encode())
    assert call(server, ASK)[0] == 200


def test_a_close_lingers_for_so_long_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = f"{HEAD}Connection: close\r\nContent-Length: {10**12}\r\n\r\n".encode()
    connections_now = server._server.server_state.connections
    monkeypatch.setattr(lingering, "LINGER_SECONDS", 0.3)
    with connect(server) as client:
        client.sendall(sent)
        assert read_all(client).startswith(b"HTTP/1.1 413")
        wait_until(lambda: not connections_now)
    monkeypatch.setattr(lingering, "LINGER_SECONDS", 100)
    monkeypatch.setattr(lingering, "LINGER_BYTES", 1 << 20)
    with connect(server) as client, suppress(ConnectionError):
        client.sendall(sent)
        while True:
            client.sendall(b"x" * (1 << 16))
    wait_until(lambda: not connections_now)
    with connect(server) as client:  # and does not hold up the server's end
        client.sendall(sent)
        assert read_all(client).startswith(b"HTTP/1.1 413")
        server.stop()
        wait_until(lambda: not connections_now)  # long before LINGER_SECONDS


def test_bodies_that_come_at_once_are_bounded_together(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "HELD_LIMIT", 250_000)
    clients = [connect(server) for _ in range(6)]
    for client in clients:
        client.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n{'x' * 60_000}".encode())
    wait_until(lambda: len(answered(clients)) >= 2)
    time.sleep(0.3)  # for more, which must not come
    assert [client.recv(100)[:12] for client in answered(clients)] == [b"HTTP/1.1 503"] * 2
    for client in clients:
        client.close()
    wait_until(lambda: call(server, ASK)[0] == 200)


def test_slow_writers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "CHECK_SECONDS", 0.1)
    assert exchange(server, f"{HEAD}Content-Length: 100\r\nConnection: close\r\n\r\n{{").startswith(b"HTTP/1.1 408")
    began = time.monotonic()
    for sent in ("", "POST", HEAD, f"GET /health HTTP/1.1\r\n{HOST}\r\nGET"):
        with connect(server) as client:
            client.sendall(sent.encode())
            read_all(client)
    in_chunks = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    for sent, then in (
        ("", HEAD * 10),
        (f"{HEAD}Content-Length: 999\r\n\r\n", " " * 999),
        (in_chunks, "1\r\n \r\n" * 99),
    ):
        with connect(server) as client:
            client.sendall(sent.encode())
            with suppress(ConnectionError):
                for letter in then:  # a byte from time to time
                    client.sendall(letter.encode())
                    time.sleep(0.03)
                    if select.select([client], [], [], 0)[0]:
                        break
            assert client.recv(100).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 60
    assert call(server, ASK)[0] == 200


def test_a_slow_reader_is_left(make_backend: Make, make_link: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.5)
    monkeypatch.setattr(connections, "CHECK_SECONDS", 0.1)
    backend = make_backend(b"x" * 30_000, n_ctx=50_000)
    with running(backend, make_link) as server:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(("127.0.0.1", server.port))
        client.sendall(post({**ASK, "stream": True, "max_tokens": 30_000}).encode())
        wait_until(lambda: len(server._server.server_state.connections) == 1)
        wait_until(lambda: len(server._server.server_state.connections) == 0)
        wait_until(lambda: is_free(server))
        client.close()
        assert call(server, {**ASK, "max_tokens": 3})[0] == 200


def test_idle_connections_make_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were idle for longest are closed, whether they have begun a request or not."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(connections, "NEW_SECONDS", 0.3)
    state = server._server.server_state
    busy = connect(server)
    busy.sendall(f"{HEAD}Content-Length: 100\r\n\r\n".encode())
    wait_until(lambda: len(state.tasks) == 1)  # in the middle of a request
    idle = [connect(server) for _ in range(60)]
    wait_until(lambda: len(state.connections) == 40)  # more are never kept
    for client in idle[-5:]:
        client.sendall(b"POST")
    time.sleep(0.4)
    assert call(server, ASK)[0] == 200
    assert len(state.connections) <= 20 and read_all(idle[0]) == b""
    busy.sendall(b" " * 100)
    assert busy.recv(100).startswith(b"HTTP/1.1 400")
    for client in (*idle, busy):
        client.close()
    wait_until(lambda: len(state.connections) == 0)
    assert call(server, ASK)[0] == 200


def test_requests_that_come_at_once_are_answered(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is taken for idle before it is read."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    clients = [connect(server) for _ in range(35)]
    for client in clients:
        client.sendall(f"GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n".encode())
    received = [read_all(client) for client in clients]
    for client in clients:
        client.close()
    assert all(one.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")) for one in received)
    assert sum(one.startswith(b"HTTP/1.1 200") for one in received) >= 20


def test_one_connection_too_many_is_told(server: Server, monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    gate = holding(backend)
    busy = [connect(server) for _ in range(3)]
    for client in busy:
        client.sendall(post().encode())
    wait_until(lambda: len(server._server.server_state.tasks) == 3)
    for _ in range(3):
        response, text = request(server, "POST", PATH, ASK)
        assert response.status == 503 and int(response.headers["Retry-After"]) > 0
        assert "3 connections" in json.loads(text)["error"]["message"]
    gate.set()
    assert all(b"Hello there." in read_all(client) for client in busy)
    for client in busy:
        client.close()
    wait_until(lambda: call(server, ASK)[0] == 200)


def test_a_stream_says_that_it_goes_on(server: Server, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the prompt is read, with the answer or an error at its end, whether the client stays or not."""
    monkeypatch.setattr(completion, "KEEP_ALIVE_SECONDS", 0.1)
    for kind in ("answer", "error", "leaves"):
        gate = holding(backend)
        with connect(server) as client:
            client.sendall(post({**ASK, "stream": True}).encode())
            received = b""
            while received.count(b"\r\n: ") < 3:
                received += client.recv(1 << 16)
            if kind == "leaves":
                client.close()
                wait_until(lambda: len(server._server.server_state.tasks) == 0)
            if kind == "error":
                server.answers.client.kill()
            gate.set()
            if kind != "leaves":
                received += read_all(client)
                assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
                assert (b'"error"' in received) == (kind == "error")
        wait_until(lambda: is_free(server))
    assert call(server, ASK)[0] == 200


def test_requests_that_wait_are_bounded_and_answered(server: Server, backend: Any) -> None:
    gate = holding(backend)
    clients = [connect(server) for _ in range(20)]
    for client in clients:
        client.sendall(post().encode())
    wait_until(lambda: len(answered(clients)) >= 9)  # the others wait
    gate.set()
    received = [read_all(client) for client in clients]
    for client in clients:
        client.close()
    assert sum(b"200 OK" in one for one in received) == server.answers.limit == 11
    assert sum(b"HTTP/1.1 503" in one and b"retry-after" in one.lower() for one in received) == 9
    wait_until(lambda: is_free(server))
