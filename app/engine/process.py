"""The user's side of the engine process: start it, send, receive, notice its death."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from specee.app.engine.heartbeat import SILENT_SECONDS, Watchdog
from specee.app.engine.protocol import Alive, Close, Failed, GuardTerminal
from specee.app.engine.terminal_guard import SavedTerminal
from specee.app.engine.wire import WireError, encode, read_message, write_message
from specee.app.errors import AppError
from specee.models import local_file

LOG_LIMIT = 1 << 20  # bytes; a larger log becomes the old one
CLOSE_SECONDS = 3.0
LAST_BYTES, LAST_CHARACTERS = 1 << 14, 200  # of a log: what is looked at for the reason of a crash, and shown of it
_LAST_WORDS = re.compile(r"(?:what\(\): +|(?=GGML_ASSERT|fatal error))(.+)")

# the child gets our own module path, not the current folder, so that no file lying there is imported by mistake
PROGRAM = "import sys; sys.path[:] = {path!r}; from specee.app.engine.worker import main; main()"


class EngineProcess:
    """A child that owns the model. Pipes only, no sockets; it ends when this process does.

    It lives in a session of its own, so that Ctrl+C in the terminal reaches this process alone. One that gives no sign
    of life for `silent_seconds` is killed: then, too, all that waits for it gets a fatal Failed.
    """

    def __init__(
        self,
        logs: Path,
        program: str = PROGRAM,
        terminal: SavedTerminal | None = None,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self.log_path = logs / "engine.log"
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # None: there is no more
        self._closing = False
        with _open_log(self.log_path) as log:
            self._log_begin = os.fstat(log.fileno()).st_size
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", program.format(path=sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=() if terminal is None else (terminal.fd,),
                )
            except OSError as error:
                raise AppError("cannot start the engine", f"{error.strerror or error}") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        if terminal is not None:  # at once: this process may be killed before a thread begins
            with contextlib.suppress(OSError):
                write_message(self._process.stdin, GuardTerminal(terminal))
        self._watchdog = Watchdog(self._process.kill, silent_seconds)
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self._writer = threading.Thread(target=self._write, args=(self._process.stdin,), daemon=True)
        self._writer.start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: object) -> None:
        """Sends a request, without waiting for the engine to read it; that it has died shows when receiving."""
        self._outbox.put(encode(message))

    def receive(self, timeout: float | None = None) -> Any:
        """The next message; after the engine's death a fatal Failed, each time. Raises queue.Empty on timeout."""
        return self._inbox.get(timeout=timeout)

    def messages(self) -> Iterator[Any]:
        """Messages as they come."""
        while True:
            yield self.receive()

    def kill(self) -> None:
        """Ends the process at once, from any thread; what it had sent can still be received."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process; waits a little, then kills it."""
        self._closing = True
        self.send(Close())
        self._outbox.put(None)
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(CLOSE_SECONDS)
        self._writer.join(CLOSE_SECONDS)

    def _write(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError), stream:  # when the engine has died
            while (message := self._outbox.get()) is not None:
                stream.write(message)
                stream.flush()

    def _read(self, stream: BinaryIO) -> None:
        unreadable: WireError | None = None
        try:
            with stream:
                while True:
                    message = read_message(stream)
                    self._watchdog.heard()
                    if not isinstance(message, Alive):
                        self._inbox.put(message)
        except (EOFError, OSError):
            pass
        except WireError as error:  # out of step for good
            unreadable = error
            self._process.kill()
        code = self._process.wait()
        self._watchdog.stop()
        self._outbox.put(None)
        if self._watchdog.has_bitten:
            silent = f"it gave no sign of life for {self._watchdog.silent_seconds:.0f} s and was ended"
            self._inbox.put(Failed("engine hung", self._advice(silent), fatal=True))
        elif unreadable is not None:
            self._inbox.put(
                Failed("engine failed", self._advice(f"it sent what cannot be read ({unreadable})"), fatal=True)
            )
        else:
            self._inbox.put(Failed("engine crashed", self._cause(code), fatal=True))

    def _cause(self, code: int) -> str:
        if self._closing:
            return "it was closed"
        what = f"it ended with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                what = f"signal {-code} ({signal.Signals(-code).name})"
            if -code == getattr(signal, "SIGKILL", 9):
                what += ", perhaps for lack of memory"
            if -code == getattr(signal, "SIGILL", 4):
                what += ": the library was built for another CPU; install again on this machine"
        if (said := self._last_words()) is not None:
            what += f" ({said})"
        return self._advice(what)

    def _last_words(self) -> str | None:
        """What the process wrote of itself when it gave up, without control characters."""
        with contextlib.suppress(OSError), os.fdopen(local_file.open_to_read(self.log_path), "rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_begin, end - LAST_BYTES))
            found = _LAST_WORDS.findall(log.read().decode("utf-8", "replace"))
            if found:
                return "".join(sign if sign.isprintable() else "�" for sign in found[-1][:LAST_CHARACTERS])
        return None

    def _advice(self, what: str) -> str:
        return f"{what}; try again to restart it; log: {self.log_path}"


def _open_log(path: Path) -> IO[bytes]:
    """The log to append to; nowhere when the folder cannot be written."""
    try:
        local_file.make_folder(path.parent)
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".old.log"))
        return os.fdopen(local_file.open_private(path, append=True), "ab")
    except OSError:
        return Path(os.devnull).open("ab")
