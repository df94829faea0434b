"""Proxies, certificates and other settings of the network that come from the environment."""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hub_server import REPO, Hub

from specee.models import download, hub, network_settings
from specee.models.errors import DOWNLOAD_FAILED, USAGE, ModelError

PULL = "from specee.app.cli.main import main; main()"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "HF_ENDPOINT")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *map(str.lower, VARIABLES)):
        monkeypatch.delenv(name, raising=False)


class Socks(socketserver.StreamRequestHandler):
    """SOCKS5 without a password."""

    def handle(self) -> None:
        _, n_methods = self.rfile.read(2)
        self.rfile.read(n_methods)
        self.wfile.write(b"\x05\x00")
        _, _, _, kind = self.rfile.read(4)
        host = socket.inet_ntoa(self.rfile.read(4)) if kind == 1 else self.rfile.read(self.rfile.read(1)[0]).decode()
        port = int.from_bytes(self.rfile.read(2), "big")
        self.server.asked.append(port)  # type: ignore[attr-defined]
        with socket.create_connection((host, port)) as hub_side:
            self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
            pumping = threading.Thread(target=_pump, args=(self.connection, hub_side))
            pumping.start()
            _pump(hub_side, self.connection)
            pumping.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class SocksProxy(socketserver.ThreadingTCPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Socks)
        self.asked: list[int] = []


@pytest.fixture
def proxy() -> Iterator[SocksProxy]:
    with SocksProxy() as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTP_PROXY"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_pull_through_a_socks_proxy(
    hub: Hub, proxy: SocksProxy, name: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import close_session

    close_session()  # a client takes its proxies when it is made
    monkeypatch.setenv(name, f"{scheme}://127.0.0.1:{proxy.server_address[1]}")
    assert download.pull(f"hf:{REPO}").is_file()
    close_session()
    assert set(proxy.asked) == {int(hub.url.rpartition(":")[2])}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks4://127.0.0.1:1"),
        ("all_proxy", "gopher://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://[::1"),
        ("HTTPS_PROXY", "http://host:99999"),
        ("https_proxy", "http://user:secret@:80"),
        ("HTTP_PROXY", "http://host:port"),
        ("HTTP_PROXY", "http://"),
        ("SSL_CERT_FILE", "/no/such.pem"),
        ("SSL_CERT_FILE", "/dev/null"),
        ("SSL_CERT_FILE", __file__),
        ("SSL_CERT_FILE", "/dev/zero"),
        ("SSL_CERT_DIR", "/no/such"),
        ("HF_HOME", "~nobody99/x"),
        ("HF_HOME", "/dev/null"),
        ("HF_HOME", "/dev/null/x"),
        ("HF_HUB_CACHE", "~nobody99"),
        ("HUGGINGFACE_HUB_CACHE", __file__),
        ("HF_ENDPOINT", "hub.example"),
        ("HF_ENDPOINT", "http://[::1"),
        ("HF_ENDPOINT", "ftp://hub.example"),
        ("HF_ENDPOINT", "https://"),
        ("HF_ENDPOINT", "//hub.example"),
        ("HF_ENDPOINT", "https://a b"),
        ("HF_ENDPOINT", "https://hub.example?x=1"),
        ("HF_ENDPOINT", "https://hub.example#x"),
        ("HF_ENDPOINT", "https://hub.example\x1b[2J"),
        ("HF_ENDPOINT", "0"),
        ("HF_HUB_ETAG_TIMEOUT", "-5"),
        ("HF_HUB_ETAG_TIMEOUT", "1.5"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "9" * 30),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("SSLKEYLOGFILE", "/no/such/file"),
        ("HUGGING_FACE_HUB_TOKEN", "sécret"),
        ("HF_TOKEN", "sécret"),
        ("HF_TOKEN", "sec\nret"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=rf"^bad environment variable: {name}: .*; correct it, or unset it$") as caught:
        download.pull(f"hf:{REPO}")
    assert caught.value.exit_code == USAGE
    assert "secret" not in str(caught.value) and "sécret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "code", "says"),
    [
        ("HF_ENDPOINT", "http://[::1", USAGE, "bad environment variable: HF_ENDPOINT: "),
        ("HF_ENDPOINT", "nowhere", USAGE, "bad environment variable: HF_ENDPOINT: "),
        ("HF_HUB_ETAG_TIMEOUT", "soon", USAGE, "bad environment variable: "),
        ("ALL_PROXY", "socks4://127.0.0.1:1", USAGE, "bad environment variable: ALL_PROXY: "),
        ("ALL_PROXY", "socks5://127.0.0.1:1", DOWNLOAD_FAILED, "through the proxy of ALL_PROXY does not answer"),
    ],
)
def test_they_are_one_line_of_the_program(tmp_path: Path, name: str, value: str, code: int, says: str) -> None:
    env = {**os.environ, "HF_HOME": str(tmp_path), "SPECEE_DATA_DIR": str(tmp_path), name: value}
    command = [sys.executable, "-c", PULL, "models", "pull", f"hf:{REPO}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == code and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_settings_that_are_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (
        ("HTTPS_PROXY", "proxy.example:3128"),
        ("HTTP_PROXY", "http://user:pass%20word@[::1]:3128/"),
        ("ALL_PROXY", "SOCKS5://host"),
        ("HF_ENDPOINT", "https://hub.example:8443/mirror"),
        ("SSL_CERT_DIR", f"/no/such{os.pathsep}{tmp_path}"),
        ("HF_TOKEN", " hf_secret\n"),
    ):
        monkeypatch.setenv(name, value)
    network_settings.check()
    assert network_settings.proxies_in_use() == ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"]
    for name in network_settings.PROXIES:
        monkeypatch.setenv(name, "")
    network_settings.check()
    assert network_settings.proxies_in_use() == []


def test_a_certificate_that_nobody_vouches_for() -> None:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert "SSL_CERT_FILE" in str(hub._explained(error, REPO, ""))
