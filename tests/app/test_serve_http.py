"""The server as HTTP clients of all kinds meet it."""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from serving import ASK, PATH, Make, call, request, running, text_of

from specee.app.errors import AppError
from specee.app.serve import body as bodies
from specee.app.serve import connection as connections
from specee.app.serve.addresses import LOOPBACK, addresses_of, is_loopback, is_safe_name, listen
from specee.app.serve.server import Access, Server

HOST = "Host: localhost\r\n"
HEAD = f"POST {PATH} HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n"


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


def connect(server: Server, timeout: float = 20.0) -> socket.socket:
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


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def holding(backend: Any) -> threading.Event:
    """No prompt is read before this is set."""
    gate = threading.Event()
    for engine in backend.engine.slots:
        engine.before_chunk = lambda done: gate.wait(20) and None
    return gate


def is_free(server: Server) -> bool:
    return bool(server.answers.places._value == server.answers.limit)


# ---- paths and methods -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [*LOOPBACK, "localhost"])
def test_localhost_is_both_addresses(server: Server, host: str) -> None:
    response, text = request(server, "POST", PATH, ASK, host)
    assert response.status == 200 and text_of(json.loads(text)) == "Hello there."


def test_what_the_server_says_of_itself(server: Server) -> None:
    def get(path: str) -> Any:
        response, text = request(server, "GET", path)
        assert response.status == 200 and response.headers["Content-Type"] == "application/json"
        return json.loads(text)

    assert get("/health") == {"status": "ok"}
    assert get("/v1/models?x=1&y=%00")["data"] == [get("/v1/models/fake")]
    assert get("/openapi.json")["openapi"].startswith("3.")
    response, text = request(server, "GET", "/v1/models/a/b%1b")
    assert response.status == 404 and json.loads(text)["error"]["param"] == "model" and b"\x1b" not in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/health", 200),
        ("HEAD", "/v1/models", 200),
        ("HEAD", "/v1/models/fake", 200),
        ("HEAD", PATH, 405),
        ("OPTIONS", PATH, 204),
        ("OPTIONS", "/v1/models", 204),
        ("GET", PATH, 405),
        ("PUT", PATH, 405),
        ("DELETE", "/v1/models/fake", 405),
        ("PATCH", "/health", 405),
        ("TRACE", "/health", 405),
        ("BREW", PATH, 405),
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/../etc/passwd", 404),
        ("GET", "/%00%ff%0a", 404),
        ("POST", "/v1/completions", 404),
        ("POST", f"{PATH}/", 404),
        ("OPTIONS", "/nothing", 404),
    ],
)
def test_methods_and_paths(server: Server, method: str, path: str, status: int) -> None:
    response, text = request(server, method, path)
    assert response.status == status
    assert not any(name.lower().startswith("access-control") for name in response.headers), "no CORS"
    if status in (204, 405):
        assert "OPTIONS" in response.headers["Allow"]
    if method == "HEAD" or status == 204:
        assert text == b""
    elif status >= 400:
        assert json.loads(text)["error"]["type"] == "invalid_request_error"


def test_a_query_string_changes_nothing(server: Server) -> None:
    assert call(server, ASK, f"{PATH}?api-version=2024-10-21")[0] == 200


@pytest.mark.parametrize(
    ("host", "safe"),
    [
        *(
            (f"{host}{port}", True)
            for host in (*("localhost", "LOCALHOST", "a.localhost"), "127.0.0.1")
            for port in ("", ":80")
        ),
        *(("[::1]", True), ("[::1]:8350", True), ("192.168.0.1:1", True)),
        *(
            (host, False)
            for host in ("evil.example", "evil.example:8350", "localhost.evil.example", "", ":80", "[x]:1")
        ),
        *((host, False) for host in ("127.0.0.1.evil.example", "evillocalhost")),
    ],
)
def test_names_of_this_machine(server: Server, host: str, safe: bool) -> None:
    assert is_safe_name(host) == safe
    assert call(server, ASK, Host=host)[0] == (200 if safe else 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_bodies_of_other_kinds(server: Server, headers: dict[str, str]) -> None:
    assert call(server, ASK, **headers)[0] == 415
    assert call(server, ASK, **{"Content-Type": "Application/JSON; charset=UTF-8"})[0] == 200


# ---- CORS and keys ---------------------------------------------------------------------------------------------------


def test_cors_is_on_for_the_origins_that_are_named(backend: Any, make_link: Make) -> None:
    page, other = "https://page.example", "https://other.example"
    with running(backend, make_link, origins=(page,)) as server:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,authorization",
        }
        response, _ = request(server, "OPTIONS", PATH, Origin=page, **asked)
        assert response.status == 200 and response.headers["Access-Control-Allow-Origin"] == page
        assert "authorization" in response.headers["Access-Control-Allow-Headers"].lower()
        response, _ = request(server, "OPTIONS", PATH, Origin=other, **asked)
        assert response.status == 400 and "Access-Control-Allow-Origin" not in response.headers
        for method, path, status in (("POST", PATH, 200), ("GET", "/nothing", 404)):
            body = ASK if method == "POST" else None
            response, _ = request(server, method, path, body, Origin=page)
            assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (status, page)
        response, _ = request(server, "POST", PATH, ASK, Origin=other)
        assert "Access-Control-Allow-Origin" not in response.headers


def test_a_key_is_asked_for_where_one_was_given(backend: Any, make_link: Make) -> None:
    with running(backend, make_link, key="sesame") as server:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": "sesame"},
            {"Authorization": "Basic sesame"},
            {"Authorization": "Bearer sesame2"},
            {"Authorization": "Bearer s\xe9same"},
        ):
            response, text = request(server, "POST", PATH, ASK, **headers)
            assert response.status == 401 and response.headers["WWW-Authenticate"] == "Bearer"
            assert json.loads(text)["error"]["code"] == "invalid_api_key" and b"sesame" not in text
            assert request(server, "GET", "/v1/models", **headers)[0].status == 401
        assert call(server, ASK, Authorization="Bearer sesame")[0] == 200
        assert call(server, ASK, Authorization="bearer  sesame")[0] == 200
        assert request(server, "GET", "/health")[0].status == 200
        document = json.loads(request(server, "GET", "/openapi.json", Authorization="Bearer sesame")[1])
        assert document["security"]


@pytest.mark.parametrize(
    ("host", "key", "allowed"),
    [
        ("localhost", None, True),
        ("127.0.0.1", None, True),
        ("127.1.2.3", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("192.0.2.1", None, False),
        ("0.0.0.0", "key", True),
        ("no such host", "key", False),
        ("a" * 300, "key", False),
        ("\udcff", "key", False),
    ],
)
def test_an_address_that_others_reach_needs_a_key(host: str, key: str | None, allowed: bool) -> None:
    access = Access(0, host, key)
    if allowed:
        assert access.addresses()
    else:
        with pytest.raises(AppError) as caught:
            access.addresses()
        assert caught.value.exit_code == 2 and "\udcff" not in caught.value.line


def test_ports() -> None:
    assert is_loopback(addresses_of("localhost")) and not is_loopback(["127.0.0.1", "10.0.0.1"])
    first = listen(LOOPBACK, 0)
    port = first[0].getsockname()[1]
    assert {one.getsockname()[1] for one in first} == {port}
    for addresses in (LOOPBACK, LOOPBACK[:1]):
        with pytest.raises(AppError, match=f"port {port}.*--port"):
            listen(addresses, port)
    for one in first:
        one.close()
    for one in listen(LOOPBACK, port):  # at once again
        one.close()


# ---- how a request may come ------------------------------------------------------------------------------------------


def test_a_body_in_chunks(server: Server) -> None:
    text = json.dumps(ASK)
    chunks = "".join(f"{1:x}\r\n{letter}\r\n" for letter in text) + "0\r\n\r\n"
    sent = f"{HEAD}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunks}"
    assert b"200 OK" in exchange(server, sent) and b"Hello there." in exchange(server, sent, half_close=True)


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
    wait_until(lambda: len(server._server.server_state.connections) == 0, 3)
    gate.set()
    wait_until(lambda: is_free(server))
    assert call(server, ASK)[0] == 200


def test_a_client_that_leaves_in_the_middle_of_its_request(server: Server) -> None:
    whole = post()
    for end in (5, len(HEAD), whole.index("\r\n\r\n") + 4, len(whole) - 1):
        assert b"200" not in exchange(server, whole[:end], half_close=True)
    wait_until(lambda: len(server._server.server_state.connections) == 0, 3)
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


@pytest.mark.parametrize(
    "sent",
    [
        "\r\n\r\nnonsense\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\0" * 50,  # TLS
        "GET /health HTTP/1.1\r\n\r\n",  # no Host
        f"GET /health HTTP/1.1\r\n{HOST}{HOST}\r\n",
        f"GET /health HTTP/1.1\r\n{HOST}X: \0\r\n\r\n",
        f"{HEAD}Content-Length: x\r\n\r\n",
        f"{HEAD}Content-Length: -1\r\n\r\n",
        f"{HEAD}Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        f"{HEAD}Transfer-Encoding: gzip\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        f"GET /health HTTP/1.1\r\n{HOST}X: {'x' * 1_000_000}\r\n\r\n",
        f"GET /{'x' * 1_000_000} HTTP/1.1\r\n{HOST}\r\n",
        f"GET /health HTTP/1.1\r\n{HOST}" + "X: y\r\n" * 100_000 + "\r\n",
    ],
)
def test_what_is_not_http(server: Server, sent: str) -> None:
    received = exchange(server, sent.encode("latin-1"))
    assert received == b"" or received.startswith(b"HTTP/1.1 400")
    assert received == b"" or json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert call(server, ASK)[0] == 200


def test_a_websocket_is_not_opened(server: Server) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with connect(server) as client:
        client.sendall(f"GET /health HTTP/1.1\r\n{HOST}{upgrade}\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_LIMIT", 1 << 20)
    large = {"messages": [{"role": "user", "content": "x" * (1 << 20)}]}
    assert call(server, large)[0] == 413
    chunk = f"{1 << 16:x}\r\n{'x' * (1 << 16)}\r\n"
    sent = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n" + chunk * 40
    with connect(server) as client:
        with suppress(ConnectionError):
            client.sendall(sent.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413")
    with connect(server) as client:
        client.sendall(f"{HEAD}Content-Length: {10**18}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413")
    assert call(server, ASK)[0] == 200


def test_bodies_that_come_at_once_are_bounded_together(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "HELD_LIMIT", 250_000)
    clients = [connect(server) for _ in range(6)]
    for client in clients:
        client.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n{'x' * 60_000}".encode())
    refused = 0
    for client in clients:
        client.settimeout(0.3)
        with suppress(TimeoutError):
            refused += client.recv(100).startswith(b"HTTP/1.1 503")
        client.close()
    assert refused == 2
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
    with connect(server) as client, suppress(ConnectionError):  # a byte from time to time
        for letter in HEAD * 10:
            client.sendall(letter.encode())
            time.sleep(0.05)
    assert time.monotonic() - began < 15
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
        wait_until(lambda: len(server._server.server_state.connections) == 0, 20)
        wait_until(lambda: is_free(server))
        client.close()
        assert call(server, {**ASK, "max_tokens": 3})[0] == 200


def test_many_connections(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    idle = [connect(server) for _ in range(30)]
    wait_until(lambda: len(server._server.server_state.connections) == 20)
    for client in idle:
        client.close()
    wait_until(lambda: len(server._server.server_state.connections) == 0)
    assert call(server, ASK)[0] == 200


def test_requests_that_wait_are_bounded_and_answered(server: Server, backend: Any) -> None:
    gate = holding(backend)
    clients = [connect(server) for _ in range(20)]
    for client in clients:
        client.sendall(post().encode())
    gate_opener = threading.Timer(1.0, gate.set)
    gate_opener.start()
    received = [read_all(client) for client in clients]
    for client in clients:
        client.close()
    assert sum(b"200 OK" in one for one in received) == server.answers.limit == 11
    assert sum(b"HTTP/1.1 503" in one and b"retry-after" in one.lower() for one in received) == 9
    wait_until(lambda: is_free(server))
