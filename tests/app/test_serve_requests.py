"""Requests of all kinds, as the server understands them: paths, hosts, keys, heads and bodies."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from serving import ASK, CODED, HEAD, HOST, PATH, Make, call, connect, exchange, request, running, text_of

from specee.app.errors import AppError
from specee.app.serve import body as bodies
from specee.app.serve.addresses import LOOPBACK, addresses_of, is_loopback, listen
from specee.app.serve.server import Access, Server


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
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{'f' * 30}\r\nhello\r\n0\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        f"GET /health\r\n{HOST}\r\n",
        f"GET  /health HTTP/1.1\r\n{HOST}\r\n",
        "x" * 1_000_000,
        f"{HEAD}{CODED}\r\n5;{'x' * 1_000_000}\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http(server: Server, sent: str) -> None:
    received = exchange(server, sent.encode("latin-1"))
    assert received == b"" or received.startswith(b"HTTP/1.1 400")
    assert received == b"" or received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert received == b"" or json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert call(server, ASK)[0] == 200


@pytest.mark.parametrize("n", [70_000, 200_000, 1_000_000])
def test_a_head_that_is_too_long(server: Server, n: int) -> None:
    """The URL, one header, many headers; whether it comes in one piece or in many."""
    for sent, status, reason in (
        (f"GET /{'x' * n} HTTP/1.1\r\n{HOST}\r\n", 414, "Too Long"),
        (f"POST {PATH}?{'x=' * n} HTTP/1.1\r\n{HOST}\r\n", 414, "Too Long"),
        (f"GET /{'x' * n}", 414, "Too Long"),
        (f"GET /health HTTP/1.1\r\n{HOST}X: {'x' * n}\r\n\r\n", 431, "Request Header Fields Too Large"),
        (f"{HEAD}{'X: y' * n}", 431, "Request Header Fields Too Large"),
        (f"GET /health HTTP/1.1\r\n{HOST}" + "X: y\r\n" * (n // 5) + "\r\n", 431, "Request Header Fields Too Large"),
    ):
        head, _, body = exchange(server, sent).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode()) and reason.encode() in head.splitlines()[0]
        assert b"Content-Type: application/json" in head
        error = json.loads(body)["error"]
        assert "64 KiB" in error["message"] and error["type"] == "invalid_request_error"
    assert call(server, ASK)[0] == 200


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
