"""The engine process: owns the model, reads requests from a pipe, writes events to another.

Its standard output and error belong to the native library's logs; the pipes are private copies of the descriptors.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from specee.app.engine.heartbeat import Heartbeat
from specee.app.engine.protocol import (
    Bench,
    Calibrate,
    Cancel,
    Close,
    Failed,
    Generate,
    GuardTerminal,
    Load,
    MeasureSpeed,
    ModelLoaded,
    Notice,
    Optimize,
    Progress,
    ReportMachine,
    Task,
    TaskDone,
    Train,
)
from specee.app.engine.terminal_guard import SavedTerminal
from specee.app.engine.wire import WireError, read_message, write_message
from specee.app.errors import as_app_error
from specee.app.options import LoadOptions

GRACE_SECONDS = 1.5  # a computation that does not end by then is cut off
PR_SET_PDEATHSIG = 1
IGNORED = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM")
"""Signals that mean nothing to this process: what it is to do, and when to end, it is told through the pipe."""


def main() -> None:
    """Entry point of the process."""
    for name in IGNORED:
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    wake_when_alone()
    inbox, outbox = take_pipes()
    worker = Worker(outbox)
    threading.Thread(target=worker.listen, args=(inbox,), daemon=True).start()
    worker.run()
    # native threads may still run after a cancelled load; nothing here needs an orderly shutdown
    sys.stderr.flush()
    os._exit(0)


def wake_when_alone() -> None:
    """When the user's process dies, this one goes on if it was stopped, and then ends by itself: its pipe is closed.

    Linux only. Elsewhere a stopped process stays until somebody continues it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Moves the pipes away from descriptors 0 and 1; prints, ours or the library's, then go to the log (2)."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return inbox, outbox


class Worker:
    """Answers requests side by side, and does tasks."""

    def __init__(self, outbox: BinaryIO) -> None:
        self._outbox = outbox
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answerer: Any = None
        self._cancelled_early: set[int] = set()  # before the model was loaded
        self._stopping = threading.Event()
        self._heartbeat = Heartbeat(self._send)

    def listen(self, inbox: BinaryIO) -> None:
        """Reads requests in a thread of its own, so that a Cancel arrives during a computation."""
        terminal: SavedTerminal | None = None
        while True:
            try:
                message = read_message(inbox)
            except (EOFError, OSError):
                message = Close()  # the user's process is gone
                if terminal is not None:
                    terminal.restore()
            except WireError:  # out of step for good; to the log
                traceback.print_exc()
                message = Close()
            if isinstance(message, GuardTerminal):
                terminal = message.terminal
            elif isinstance(message, Cancel):
                self._cancel(message.request)
            elif isinstance(message, Close):
                self._stopping.set()
                self._requests.put(message)
                if self._answerer is not None:
                    self._answerer.cancellation.cancel_all()
                timer = threading.Timer(GRACE_SECONDS, os._exit, (0,))
                timer.daemon = True
                timer.start()
                return
            else:
                self._requests.put(message)

    def run(self) -> None:
        """Serves until Close."""
        handlers: dict[type, Callable[[Any], None]] = {Load: self._load, Generate: self._generate}
        handlers |= dict.fromkeys((Calibrate, Train, Optimize, Bench, ReportMachine, MeasureSpeed), self._task)
        self._heartbeat.start()
        while True:
            busy = self._answerer is not None and self._answerer.busy
            try:
                message = self._requests.get(block=not busy)
            except queue.Empty:
                message = None
            if isinstance(message, Close):
                return
            try:
                if message is None:
                    self._turn()
                else:
                    handlers[type(message)](message)
            except BrokenPipeError:
                return
            except BaseException as error:
                if self._stopping.is_set():
                    return
                traceback.print_exc()  # to the log
                failure = as_app_error(error)
                with suppress(BrokenPipeError):
                    fatal = not isinstance(message, Task)
                    self._send(Failed.by(failure, fatal=fatal))

    def _send(self, message: object) -> None:
        if self._stopping.is_set():
            raise BrokenPipeError  # ends a job at its next sign of progress, so that it removes what it has half done
        write_message(self._outbox, message)

    def _cancel(self, request: int) -> None:
        answerer = self._answerer
        if answerer is None:
            self._cancelled_early.add(request)
        else:
            answerer.cancellation.cancel(request)

    def _load(self, message: Load) -> None:
        from specee.app.engine.loading import open_backend

        send = self._send
        self._tell_of_loss(message.options)
        backend = open_backend(message.options, lambda what, fraction: send(Progress(what, fraction)))
        self._answerer = _answerer(backend, message.options.data_dir)
        for request in self._cancelled_early:
            self._answerer.cancellation.cancel(request)
        for text in backend.notices:
            self._send(Notice(text))
        self._send(ModelLoaded(backend.info))

    def _generate(self, message: Generate) -> None:
        self._answerer.add(message, self._send)

    def _turn(self) -> None:
        self._heartbeat.begin()
        try:
            self._answerer.turn()
        finally:
            self._heartbeat.end()

    def _tell_of_loss(self, options: LoadOptions) -> None:
        """A worker that is lost ends this process: it says which one before."""
        if options.rpc is None:
            return
        from specee.native import rpc

        def lost(error: BaseException) -> None:
            failure = as_app_error(error)
            with suppress(OSError):
                self._send(Failed.by(failure, fatal=True))
            os._exit(failure.exit_code)

        rpc.tell_of_loss(lost)

    def _task(self, message: Task) -> None:
        from specee.app.engine import tasks

        self._tell_of_loss(message.load)
        self._send(TaskDone(tasks.run(message, self._send)))


def _answerer(backend: Any, data_dir: str | None) -> Any:
    from specee.app import machine, paths
    from specee.app.engine.answering import Answerer
    from specee.app.engine.measurements import Measurements

    return Answerer(backend, Measurements(paths.find(data_dir).measurements, machine.library_build()))
