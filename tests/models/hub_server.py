"""The part of the hub that a pull needs, on this machine, with faults to order."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

REPO, FILE, COMMIT = "owner/tiny-GGUF", "tiny-Q4_K_M.gguf", "c" * 40


@dataclass
class Hub:
    """What the server has, how it misbehaves, and what it was asked for.

    `repos` maps a repository to its files. `cut_after`: bytes after which each answer ends (None: never). `slow`:
    seconds between pieces of 64 KiB. `status`: an answer to give instead, by kind of request (info, head, get).
    `once`: after the first answer with a file's bytes there is no other.
    `requests` are (first byte, bytes sent) of each answer with a file's bytes. These come from `store`, another host,
    which must not learn the token; `tokens` and `store_tokens` are what each was shown.
    """

    repos: dict[str, dict[str, Path]]
    cut_after: int | None = None
    slow: float = 0.0
    status: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    once: bool = False
    wrong_bytes: bool = False
    ignore_ranges: bool = False
    commit: str = COMMIT
    requests: list[list[int]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    store_tokens: list[str | None] = field(default_factory=list)
    url: str = ""
    store: str = ""

    def sha256(self, repo: str, name: str) -> str:
        path = self.repos[repo][name]
        if path not in _HASHES:
            _HASHES[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return _HASHES[path]


_HASHES: dict[Path, str] = {}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Runs the server for a while."""

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.store = hub.url.replace("127.0.0.1", "localhost")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        # small buffers: what the client has not read must not count as sent
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        super().setup()

    def log_message(self, *arguments: object) -> None: ...

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/([^/?]+))?(?:\?.*)?", self.path):
            self._info(found[1])
        elif self.path.startswith("/blob/"):
            _, _, repo, name = unquote(self.path).split("/", 3)
            self._bytes(repo.replace("--", "/"), name)
        else:
            self._resolve("get")

    def do_HEAD(self) -> None:
        self._resolve("head")

    def _info(self, repo: str) -> None:
        self.served.tokens.append(self.headers.get("Authorization"))
        if not self._refused("info", repo):
            names = [{"rfilename": name} for name in self.served.repos[repo]]
            body = json.dumps({"id": repo, "modelId": repo, "sha": self.served.commit, "siblings": names}).encode()
            self._answer(200, {"Content-Type": "application/json"}, body)

    def _resolve(self, kind: str) -> None:
        """As the hub does: a redirect to where the bytes are, with the file's hash and size."""
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", unquote(self.path))
        if found is None:
            self._answer(404)
            return
        self.served.tokens.append(self.headers.get("Authorization"))
        repo, name = found[1], found[3]
        if self._refused(kind, repo):
            return
        if name not in self.served.repos[repo]:
            self._answer(404, {"X-Error-Code": "EntryNotFound"})
            return
        self._answer(
            302,
            {
                "Location": f"{self.served.store}/blob/{repo.replace('/', '--')}/{name}",
                "X-Repo-Commit": self.served.commit,
                "X-Linked-Etag": f'"{self.served.sha256(repo, name)}"',
                "X-Linked-Size": str(self.served.repos[repo][name].stat().st_size),
                "ETag": '"something-else"',
            },
        )

    def _refused(self, kind: str, repo: str) -> bool:
        if (status := self.served.status.get(kind)) is not None:
            self._answer(status, self.served.headers)
        elif repo not in self.served.repos:
            status = 401
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        return status is not None

    def _bytes(self, repo: str, name: str) -> None:
        path, hub = self.served.repos[repo][name], self.served
        hub.store_tokens.append(self.headers.get("Authorization"))
        size = path.stat().st_size
        begin = 0
        if (wanted := self.headers.get("Range")) and not hub.ignore_ranges:
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
        if begin >= size:
            self._answer(416)
            return
        if hub.once:
            hub.status = {"get": 503}
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(size - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.end_headers()
        log = [begin, 0]
        hub.requests.append(log)
        with path.open("rb") as file:
            file.seek(begin)
            while piece := file.read(1 << 16):
                room = len(piece) if hub.cut_after is None else hub.cut_after - log[1]
                try:
                    self.wfile.write((bytes(len(piece)) if hub.wrong_bytes else piece)[:room])
                except OSError:  # the client is gone
                    break
                log[1] += min(room, len(piece))
                if room < len(piece):
                    break
                time.sleep(hub.slow)
        self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
