"""`specee-chat serve`: the OpenAI chat completions API on 127.0.0.1, without what we cannot do (which is refused)."""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from specee.app.engine_client import EngineClient, Event
from specee.app.errors import PROMPT_TOO_LONG, USAGE, AppError
from specee.app.options import ChatOptions, LoadOptions, replace_sampling
from specee.app.protocol import ChatEvent, Done, Message, Stats

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # another Host header is a web page that plays tricks with DNS
BODY_LIMIT = 8 << 20  # bytes
QUEUE_LIMIT = 8  # requests that wait for their turn
REFUSED = ("tools", "functions", "stop", "logprobs", "logit_bias", "response_format")
FINISH = {"stop": "stop", "length": "length", "window": "length", "cancelled": "stop"}


class Server(ThreadingHTTPServer):
    """One engine; requests answer in turn."""

    daemon_threads = True

    def __init__(self, client: EngineClient, options: ChatOptions, port: int) -> None:
        super().__init__((HOST, port), Handler)
        self.client, self.options = client, options
        self.turn = threading.Lock()
        self.waiting = threading.Semaphore(QUEUE_LIMIT)

    @property
    def model(self) -> str:
        info = self.client.info
        return info.name if info is not None else "specee"


@dataclass(frozen=True)
class Asked:
    """A request for an answer."""

    messages: tuple[Message, ...]
    options: ChatOptions
    stream: bool
    stream_usage: bool

    @classmethod
    def read(cls, body: dict[str, Any], defaults: ChatOptions) -> Asked:
        """Raises AppError for what is wrong or what we cannot do."""
        for name in REFUSED:
            if body.get(name) not in (None, [], {}, False, {"type": "text"}):
                raise AppError("not supported", f"{name!r} is not supported here", USAGE)
        if body.get("n", 1) != 1:
            raise AppError("not supported", "only n = 1 is", USAGE)
        turns = body.get("messages")
        if not isinstance(turns, list) or not turns:
            raise AppError("bad request", "'messages' must be a list that is not empty", USAGE)
        sampling = {
            name: _number(body, name) for name in ("temperature", "top_p", "seed") if body.get(name) is not None
        }
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or defaults.max_tokens
        if not isinstance(limit, int) or limit < 1:
            raise AppError("bad request", "'max_tokens' must be a number from 1", USAGE)
        options = replace(defaults, sampling=replace_sampling(defaults.sampling, sampling), max_tokens=limit)
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return cls(tuple(_message(turn) for turn in turns), options, bool(body.get("stream")), usage)


def _number(body: dict[str, Any], name: str) -> float:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise AppError("bad request", f"{name!r} must be a number from 0", USAGE)
    return value


def _message(turn: Any) -> Message:
    role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    role = "system" if role == "developer" else role
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        raise AppError("bad request", "a message has a role (system, user, assistant) and a text", USAGE)
    return Message(role, content)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds for a client to say what it wants

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
            asked = Asked.read(self._body(), self.server.options)
        except AppError as error:
            self._fail(400, error.title, error.message)
            return
        if not self.server.waiting.acquire(blocking=False):
            self._fail(503, "busy", f"{QUEUE_LIMIT} requests wait already")
            return
        try:
            with self.server.turn:
                if not self._gone():
                    self._answer(asked)
        except OSError:
            self.close_connection = True  # the client left
        finally:
            self.server.waiting.release()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on the terminal for each request."""

    # ---- an answer -------------------------------------------------------------------------------------------------

    def _answer(self, asked: Asked) -> None:
        reply = _Reply(self.server.model)
        begun = False
        try:
            # closing: the engine is free again before the next request has its turn, however this one ends
            with closing(self.server.client.generate(asked.messages, asked.options)) as events:
                for event in self._words(events):
                    if asked.stream and not begun:  # only now: what cannot be answered has a status of its own
                        begun = True
                        self._begin_stream()
                        self._chunk(reply.chunk({"role": "assistant", "content": ""}))
                    if isinstance(event, Done):
                        self._finish(asked, reply, event.stats)
                    else:
                        reply.add(event)
                        if asked.stream and event.text:
                            self._chunk(reply.chunk({"content": event.text}))
        except AppError as error:
            if begun:
                self._chunk(_error(error.title, error.message))
                self._end_stream()
            else:
                self._fail(400 if error.exit_code in (USAGE, PROMPT_TOO_LONG) else 500, error.title, error.message)

    def _finish(self, asked: Asked, reply: _Reply, stats: Stats) -> None:
        if not asked.stream:
            self._send(200, reply.whole(stats))
            return
        self._chunk(reply.chunk({}, stats))
        if asked.stream_usage:
            self._chunk(reply.usage(stats))
        self._end_stream()

    def _words(self, events: Iterator[Event]) -> Iterator[ChatEvent | Done]:
        """Verified words and the end; when the client leaves, the answer is cancelled."""
        for event in events:
            if self._gone():
                self.server.client.cancel()
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
        except ValueError as error:
            raise AppError("bad request", "the body is not JSON, or too long", USAGE) from error
        if not isinstance(body, dict):
            raise AppError("bad request", "the body is not an object", USAGE)
        return body

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, title: str, message: str) -> None:
        self.close_connection = True  # the request's body may be unread
        self._send(status, _error(title, message))

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


class _Reply:
    """The objects of one answer; `specee` in the last one has the figures of the exits."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._text: list[str] = []
        self._layers: dict[int, int] = {}

    def add(self, event: ChatEvent) -> None:
        self._text.append(event.text)
        if not event.stop:
            self._layers.setdefault(event.index, event.exit_layer)

    def whole(self, stats: Stats) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._text)}
        choice = {"index": 0, "message": message, "finish_reason": FINISH[stats.stop_reason], "logprobs": None}
        extra = {"usage": _usage(stats), "specee": self._exits(stats)}
        return {**self._head, "object": "chat.completion", "choices": [choice], **extra}

    def chunk(self, delta: dict[str, str], stats: Stats | None = None) -> dict[str, Any]:
        reason = FINISH[stats.stop_reason] if stats is not None else None
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        extra = {} if stats is None else {"specee": self._exits(stats)}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **extra}

    def usage(self, stats: Stats) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(stats)}

    def _exits(self, stats: Stats) -> dict[str, Any]:
        names = ("policy", "policy_reason", "mean_exit_layer", "n_layers", "tokens_per_second", "ttft_s", "reused")
        layers = [self._layers[index] for index in sorted(self._layers)]
        return {**{name: getattr(stats, name) for name in names}, "exit_layers": layers}


def _usage(stats: Stats) -> dict[str, Any]:
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.tokens,
        "total_tokens": stats.prompt_tokens + stats.tokens,
        "prompt_tokens_details": {"cached_tokens": stats.reused},
    }


def _error(title: str, message: str) -> dict[str, Any]:
    return {"error": {"message": f"{title}: {message}", "type": title.replace(" ", "_"), "code": None, "param": None}}


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
            print(f"serving {server.model} at http://{HOST}:{server.server_port}/v1, Ctrl+C ends", file=sys.stderr)
            server.serve_forever()
    finally:
        client.close()
