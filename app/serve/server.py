"""`specee-chat serve`: the OpenAI chat completions API, by default for programs on this machine only."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from specee.app import paths
from specee.app.engine.client import EngineClient
from specee.app.errors import USAGE, AppError
from specee.app.options import ChatOptions, LoadOptions
from specee.app.serve.addresses import LOCALHOST, LOOPBACK, addresses_of, is_loopback, listen
from specee.app.serve.answers import Answers
from specee.app.serve.application import application
from specee.app.serve.connection import Connection
from specee.app.serve.ending import Ending

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
        self._server = uvicorn.Server(
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
        """Until Ctrl+C, SIGTERM or `stop`."""
        self._server.run(self._sockets)

    def stop(self) -> None:
        """May be called from any thread."""
        self._server.should_exit = True


def serve(load: LoadOptions, options: ChatOptions, access: Access) -> None:
    """Serves until Ctrl+C. Raises AppError when the model or the port cannot be had."""
    sockets = listen(access.addresses(), access.port)
    client = EngineClient(load)
    try:
        _log_to(paths.find(load.data_dir).logs)
        for _ in client.open():
            pass
        server = Server(client, options, access, sockets)
        info = server.answers.info
        if info.n_slots < load.n_slots:
            why = f"there is no memory for the windows of {load.n_slots}; a smaller --ctx helps"
            print(f"{info.n_slots} requests are answered at once: {why}", file=sys.stderr)
        host = LOOPBACK[0] if access.host == LOCALHOST else f"[{access.host}]" if ":" in access.host else access.host
        print(f"serving {info.name} at http://{host}:{server.port}/v1, Ctrl+C ends", file=sys.stderr)
        server.run()
    finally:
        client.close()
        for one in sockets:
            one.close()


def _log_to(folder: Path) -> None:
    """The libraries' errors go to a file, as the terminal is the user's; nowhere where it cannot be written."""
    logging.raiseExceptions = False
    handler: logging.Handler = logging.NullHandler()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "serve.log", delay=True)
    except OSError:
        pass
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
