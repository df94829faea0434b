"""`specee-chat serve`: the OpenAI chat completions API, by default for programs on this machine only."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

import uvicorn

from specee.app import paths
from specee.app.engine.client import EngineClient
from specee.app.engine.protocol import Notice
from specee.app.errors import USAGE, AppError
from specee.app.options import ChatOptions, LoadOptions
from specee.app.serve.addresses import LOCALHOST, LOOPBACK, addresses_of, is_loopback, listen
from specee.app.serve.answers import LEFT_SECONDS, Answers
from specee.app.serve.application import application
from specee.app.serve.connection import Connection
from specee.app.serve.ending import Ending
from specee.app.serve.signals import Signals
from specee.models import local_file

GRACE_SECONDS = 1  # that answers have when the server ends


@dataclass(frozen=True)
class Access:
    """Where the server listens, and for whom. `origins`: web pages that may use it."""

    port: int
    host: str = LOCALHOST
    key: str | None = None
    origins: tuple[str, ...] = ()

    def addresses(self) -> tuple[str, ...]:
        """Those to listen at. Raises AppError when they are none, or open to all who reach them."""
        addresses = addresses_of(self.host)
        if self.key is None and not is_loopback(addresses):
            what = f"other machines reach {self.host}: give a key with --api-key or SPECEE_API_KEY"
            raise AppError("no API key", what, USAGE)
        return addresses


class _HttpServer(uvicorn.Server):
    """uvicorn's server, which leaves the signals to us: its own answer to a second Ctrl+C is a traceback."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Those whose clients still send are not waited for, but closed before the event loop ends."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await asyncio.sleep(0)  # in which they are


class Server:
    """One engine behind sockets that accept connections."""

    def __init__(
        self, client: EngineClient, options: ChatOptions, access: Access, sockets: Sequence[socket.socket]
    ) -> None:
        self._sockets = list(sockets)
        self.port: int = self._sockets[0].getsockname()[1]
        self.answers = Answers(client)
        loopback = is_loopback(one.getsockname()[0] for one in self._sockets)
        app = application(self.answers, options, key=access.key, origins=access.origins, loopback=loopback)
        self._server = _HttpServer(
            uvicorn.Config(
                Ending(app),
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    def run(self) -> None:
        """Until `stop`."""
        self._server.run(self._sockets)

    def stop(self) -> None:
        """May be called from any thread."""
        self._server.should_exit = True


def serve(load: LoadOptions, options: ChatOptions, access: Access) -> int:
    """Serves until a signal ends it; returns the exit code. Raises AppError when the model or port cannot be had."""
    sockets = listen(access.addresses(), access.port)
    client = EngineClient(load)
    client.silence_seconds = LEFT_SECONDS
    signals = Signals(client.kill)  # as long as the engine loads the model, which nothing else interrupts
    with signals.handled():
        try:
            _log_to(paths.find(load.data_dir).logs)
            if _open(client, signals):
                server = Server(client, options, access, sockets)
                _say(server, load, options, access)
                signals.on_first = server.stop
                if signals.first is None:
                    server.run()
        finally:
            client.close()
            for one in sockets:
                one.close()
    return signals.exit_code()


def _open(client: EngineClient, signals: Signals) -> bool:
    """Loads the model. Returns False if a signal came before it was there. Raises AppError."""
    try:
        for event in client.open():
            if isinstance(event, Notice):
                print(event.text, file=sys.stderr)
            if signals.first is not None:
                break
    except AppError:
        if signals.first is None:
            raise
    if signals.first is None:
        return True
    client.kill()  # it may have been started after the signal came
    return False


def _say(server: Server, load: LoadOptions, options: ChatOptions, access: Access) -> None:
    """What the user must know."""
    info = server.answers.info
    if (why := info.cannot_think(options.think)) is not None:
        print(why, file=sys.stderr)
    if info.n_slots < load.n_slots:
        why = f"there is no memory for the windows of {load.n_slots}; a smaller --ctx helps"
        print(f"{info.n_slots} requests are answered at once: {why}", file=sys.stderr)
    host = LOOPBACK[0] if access.host == LOCALHOST else f"[{access.host}]" if ":" in access.host else access.host
    print(f"serving {info.name} at http://{host}:{server.port}/v1, Ctrl+C ends", file=sys.stderr)


class _Log(logging.FileHandler):
    """Which only the user can read. Raises OSError where it cannot be written."""

    def _open(self) -> TextIOWrapper:
        descriptor = local_file.open_private(Path(self.baseFilename), append=True)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def _log_to(folder: Path) -> None:
    """The libraries' errors go to a file, as the terminal is the user's; nowhere where it cannot be written."""
    logging.raiseExceptions = False
    handler: logging.Handler = logging.NullHandler()
    with suppress(OSError):
        local_file.make_folder(folder)
        handler = _Log(folder / "serve.log")
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
