"""The server as HTTP clients of all kinds meet it."""

from __future__ import annotations

import json
import logging
import select
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
from specee.app.serve import completion, lingering
from specee.app.serve import connection as connections
from specee.app.serve.addresses import LOOPBACK, addresses_of, is_loopback, listen
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
    ("status", "hosts"),
    [
        (200, ("localhost", "LOCALHOST", "Localhost.", "a.localhost", "a.localhost.:80", "localhost:", "localhost:80")),
        (200, ("127.0.0.1", "127.0.0.1:80", "127.0.0.1.", "127.1", "0x7f.1", "2130706433", "192.168.0.1:1")),
        (200, ("[::1]", "[::1]:8350", "[0:0:0:0:0:0:0:1]", "[::FFFF:127.0.0.1]", "[fe80::1%eth0]:1")),
        (403, ("evil.example", "EVIL.example.", "evil.example:8350", "localhost.evil.example", "evillocalhost")),
        (403, ("127.0.0.1.evil.example", "127.0.0.1.1", "300.0.0.1", "face", "beef.bad", "0x", ".", "localhost..")),
        (403, ("[:::1]", "[1]", "[127.0.0.1]")),
        (400, ("", ":80", "[x]:1", "[::1", "::1", "::1]:80", "[]", "localhost:80:80", "localhost:x", "localhost:-1")),
        (400, ("a@localhost", "localhost/health", "localhost?", "localhost#", "localhost, evil.example", "local host")),
        (400, ("http://localhost", "localhost\\", "l\xf6calhost", "localhost:123456")),
    ],
)
def test_names_of_this_machine(server: Server, status: int, hosts: tuple[str, ...]) -> None:
    for host in hosts:
        assert (host, call(server, ASK, Host=host)[0]) == (host, status)
        if host and host.isascii() and " " not in host and "/" not in host and status != 400:
            received = exchange(server, f"GET http://{host}/health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")
            assert received.startswith(f"HTTP/1.1 {status}".encode()), host


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET http://127.0.0.1:8080/health", 200),
        ("GET HTTP://LOCALHOST/v1/models?x=/", 200),
        ("GET https://[::1]/health", 200),
        ("GET http://localhost", 404),
        ("GET http://localhost?x", 404),
        ("GET http://evil.example/health", 403),
        ("GET http://localhost@evil.example/health", 400),
        ("GET http://evil.example@localhost/health", 400),
        ("GET http:///health", 400),
        ("GET ftp://localhost/health", 400),
        ("GET localhost/health", 400),
        ("GET *", 400),
        ("GET //localhost/health", 404),
        ("OPTIONS *", 204),
        ("CONNECT localhost:80", 400),
    ],
)
def test_targets(server: Server, line: str, status: int) -> None:
    for host in ("localhost", "127.0.0.1:8080"):
        received = exchange(server, f"{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert received.startswith(f"HTTP/1.1 {status}".encode())
        assert status < 400 or json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]
    evil = exchange(server, f"{line} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert evil.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))


def test_a_host_header_does_not_open_a_door(backend: Any, make_link: Make) -> None:
    """What it has is no part of the path."""
    with running(backend, make_link, key="sesame") as server:
        for host in ("localhost/health?", "localhost/health#", "x@localhost/health", "["):
            assert call(server, ASK, Host=host)[0] == 400
        line = f"GET http://localhost/health?/../v1/models HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
        assert b"200 OK" in exchange(server, line)
        for target in ("/v1/models?/health", "http://localhost/v1/models", "/health/../v1/models", "/health/"):
            assert b" 401 " in exchange(server, f"GET {target} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/jsonl"},
        {"Content-Type": "application/json, text/plain"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_bodies_of_other_kinds(server: Server, headers: dict[str, str]) -> None:
    assert call(server, ASK, **headers)[0] == 415


@pytest.mark.parametrize(
    "given",
    ["", " ", ";", "; charset=UTF-8", ";charset=utf8", '; charset="utf-8"', "; version=1", ';a="b;c";charset=UTF8;q=1'],
)
def test_content_types_of_json(server: Server, given: str) -> None:
    assert call(server, ASK, **{"Content-Type": f"Application/JSON{given}"})[0] == 200


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
        received = exchange(server, whole[:end], half_close=True)
        assert received.startswith(b"HTTP/1.1 400 ") and b"is incomplete" in received
    assert b"the body is incomplete" in exchange(server, f"{HEAD}Content-Length: 100\r\n\r\n{{}}", half_close=True)
    assert b"the body is incomplete" in exchange(server, f"{HEAD}{CODED}\r\n2\r\n{{}}\r\n", half_close=True)
    assert exchange(server, "", half_close=True) == b""
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
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{'f' * 30}\r\nhello\r\n0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        f"GET /health\r\n{HOST}\r\n",
        f"GET  /health HTTP/1.1\r\n{HOST}\r\n",
    ],
)
def test_what_is_not_http(server: Server, sent: str) -> None:
    received = exchange(server, sent.encode("latin-1"))
    assert received == b"" or received.startswith(b"HTTP/1.1 400")
    assert received == b"" or received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert received == b"" or json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert call(server, ASK)[0] == 200


CODED = "Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        f"Content-Length: 5\r\n{CODED}",
        f"{CODED}Content-Length: 5\r\n",
        f"content-length:0\r\n{CODED}",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5_0\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        f"Content-Length: {'9' * 30}\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\r\n",
        f"{CODED}{CODED}",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tContent-Length: 5\r\n",
        "X: a\n",
        "X: a\nContent-Length: 5\r\n",
        "X: a\rContent-Length: 5\r\n",
        " X: a\r\n",
        "X y: a\r\n",
        ": a\r\n",
    ],
)
def test_what_two_readers_may_understand_otherwise(server: Server, headers: str) -> None:
    """It is refused, and what follows is not read as a request."""
    second = f"GET /health HTTP/1.1\r\n{HOST}\r\n"
    for body in ("0\r\n\r\n", "hello", ""):
        received = exchange(server, f"{HEAD}{headers}\r\n{body}{second}", half_close=True)
        assert received.startswith(b"HTTP/1.1 400") and received.count(b"HTTP/1.1") == 1
        assert b"connection: close" in received.lower()
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


def test_a_body_that_breaks_while_its_request_is_being_answered(server: Server) -> None:
    """One answer, and none after it (the server's log stays empty)."""
    for body in ('5\r\n{"a":\r\nzz\r\n', "5\r\nhelloXX", "zz\r\n"):
        for end in range(len(body)):  # so that the request is taken before the error is there
            with connect(server) as client:
                client.sendall(f"{HEAD}{CODED}\r\n{body[:end]}".encode())
                time.sleep(0.002)
                client.sendall(body[end:].encode())
                assert read_all(client).count(b"HTTP/1.1 400") == 1


def test_versions_of_http(server: Server) -> None:
    for version, sent in (("1.0", CODED), ("1.2", ""), ("2.0", ""), ("0.9", "")):
        received = exchange(server, f"GET /health HTTP/{version}\r\n{HOST}{sent}\r\n", half_close=True)
        assert received.startswith(b"HTTP/1.1 400")
    assert b"200 OK" in exchange(server, "GET /health HTTP/1.0\r\n\r\n")  # which needs no Host


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
        wait_until(lambda: not connections_now, 3)
    monkeypatch.setattr(lingering, "LINGER_SECONDS", 100)
    monkeypatch.setattr(lingering, "LINGER_BYTES", 1 << 20)
    with connect(server) as client, suppress(ConnectionError):
        client.sendall(sent)
        while True:
            client.sendall(b"x" * (1 << 16))
    wait_until(lambda: not connections_now, 3)
    with connect(server) as client:  # and does not hold up the server's end
        client.sendall(sent)
        assert read_all(client).startswith(b"HTTP/1.1 413")
        began = time.monotonic()
        server.stop()
        wait_until(lambda: not connections_now, 3)
        assert time.monotonic() - began < 1


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
    gate_opener = threading.Timer(1.0, gate.set)
    gate_opener.start()
    received = [read_all(client) for client in clients]
    for client in clients:
        client.close()
    assert sum(b"200 OK" in one for one in received) == server.answers.limit == 11
    assert sum(b"HTTP/1.1 503" in one and b"retry-after" in one.lower() for one in received) == 9
    wait_until(lambda: is_free(server))
