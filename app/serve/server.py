"""`specee-chat serve`: the OpenAI chat completions API on 127.0.0.1; what is not supported is refused."""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from specee.app.engine.client import EngineClient, Event
from specee.app.engine.protocol import ChatEvent, Done, Stats
from specee.app.errors import PROMPT_TOO_LONG, USAGE, AppError
from specee.app.options import ChatOptions, LoadOptions
from specee.app.serve.reply import Reply, error_object
from specee.app.serve.request import CompletionRequest

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # another Host header: a web page that reaches us by DNS rebinding
BODY_LIMIT = 8 << 20  # bytes
WAITING_LIMIT = 8  # requests that wait for a slot
RETRY_SECONDS = 2  # after which a refused client may ask again
NO_HEADERS: Mapping[str, str] = {}
LEFT_SECONDS = 1.0  # within which it is noticed that a client left whose request waits


class Server(ThreadingHTTPServer):
    """One engine, which answers as many requests at once as it has slots."""

    daemon_threads = True

    def __init__(self, client: EngineClient, options: ChatOptions, port: int) -> None:
        super().__init__((HOST, port), Handler)
        self.client, self.options = client, options
        client.silence_seconds = LEFT_SECONDS
        self.limit = self.n_slots + WAITING_LIMIT
        self.places = threading.Semaphore(self.limit)

    @property
    def n_slots(self) -> int:
        return self.client.info.n_slots if self.client.info is not None else 1

    @property
    def model(self) -> str:
        info = self.client.info
        return info.name if info is not None else "specee"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a client may take to send its request

    def do_GET(self) -> None:
        if self._refused():
            return
        if self.path == "/v1/models":
            model = {"id": self.server.model, "object": "model", "created": 0, "owned_by": "local"}
            self._send(200, {"object": "list", "data": [model]})
        else:
            self._fail(404, "not found", f"there is no {self.path}")

    def do_POST(self) -> None:
        if self._refused():
            return
        if self.path != "/v1/chat/completions":
            self._fail(404, "not found", f"there is no {self.path}")
            return
        try:
            request = CompletionRequest.read(self._body(), self.server.options)
        except AppError as error:
            self._fail(400, error.title, error.message)
            return
        if not self.server.places.acquire(blocking=False):
            what = f"{self.server.limit} requests are waiting or being answered"
            self._fail(503, "busy", what, {"Retry-After": str(RETRY_SECONDS)})
            return
        try:
            self._answer(request)
        except OSError:
            self.close_connection = True  # the client left
        finally:
            self.server.places.release()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on the terminal for each request."""

    # ---- an answer -------------------------------------------------------------------------------------------------

    def _answer(self, request: CompletionRequest) -> None:
        reply = Reply(self.server.model)
        begun = False
        try:
            # closing: the slot is free again, however this answer ends
            with closing(self.server.client.generate(request.messages, request.options)) as answer:
                for event in self._verified(answer):
                    if request.stream and not begun:  # only now: an error before it has a status of its own
                        begun = True
                        self._begin_stream()
                        self._chunk(reply.chunk({"role": "assistant", "content": ""}))
                    if isinstance(event, Done):
                        self._finish(request, reply, event.stats)
                        continue
                    text = reply.add(event)
                    if request.stream and text:
                        self._chunk(reply.chunk({"content": text}))
        except AppError as error:
            if begun:
                self._chunk(error_object(error.title, error.message))
                self._end_stream()
            else:
                self._fail(400 if error.exit_code in (USAGE, PROMPT_TOO_LONG) else 500, error.title, error.message)

    def _finish(self, request: CompletionRequest, reply: Reply, stats: Stats) -> None:
        if not request.stream:
            self._send(200, reply.whole(stats))
            return
        self._chunk(reply.chunk({}, stats))
        if request.stream_usage:
            self._chunk(reply.usage(stats))
        self._end_stream()

    def _verified(self, events: Iterator[Event]) -> Iterator[ChatEvent | Done]:
        """Verified tokens and the end. Raises ConnectionAbortedError when the client has left."""
        for event in events:
            if self._gone():
                raise ConnectionAbortedError
            if isinstance(event, Done) or (isinstance(event, ChatEvent) and event.state == "verified"):
                yield event

    def _gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    # ---- HTTP ------------------------------------------------------------------------------------------------------

    def _refused(self) -> bool:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host in NAMES:
            return False
        self._fail(403, "forbidden", "only for programs on this machine")
        return True

    def _body(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":  # also keeps forms of web pages out
            raise AppError("bad request", "the content type must be application/json", USAGE)
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 <= length <= BODY_LIMIT:
                raise ValueError
            body = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:  # nested too deep
            raise AppError("bad request", "the body is not JSON, or too long", USAGE) from error
        if not isinstance(body, dict):
            raise AppError("bad request", "the body is not an object", USAGE)
        return body

    def _send(self, status: int, content: dict[str, Any], headers: Mapping[str, str] = NO_HEADERS) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, title: str, message: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self.close_connection = True  # the request's body may be unread
        self._send(status, error_object(title, message), headers)

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def _chunk(self, content: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(content).encode() + b"\n\n")

    def _end_stream(self) -> None:
        self.wfile.write(b"data: [DONE]\n\n")


def serve(load: LoadOptions, options: ChatOptions, port: int) -> None:
    """Serves until Ctrl+C. Raises AppError when the model or the port cannot be had."""
    client = EngineClient(load)
    try:
        for _ in client.open():
            pass
        try:
            server = Server(client, options, port)
        except OSError as error:
            raise AppError("cannot listen", f"port {port}: {error.strerror}; choose another with --port") from error
        with server:
            if server.n_slots < load.n_slots:
                why = f"there is no memory for the windows of {load.n_slots}; a smaller --ctx helps"
                print(f"{server.n_slots} requests are answered at once: {why}", file=sys.stderr)
            print(f"serving {server.model} at http://{HOST}:{server.server_port}/v1, Ctrl+C ends", file=sys.stderr)
            server.serve_forever()
    finally:
        client.close()
