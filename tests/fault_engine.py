"""An engine process without a model: its tokens are numbers, 300 a second, until it is stopped or killed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from specee.app.engine.heartbeat import Heartbeat
from specee.app.engine.process import EngineProcess
from specee.app.engine.protocol import (
    Cancel,
    ChatEvent,
    Close,
    Done,
    Generate,
    Load,
    ModelInfo,
    ModelLoaded,
    OfRequest,
    Started,
    Stats,
    TokenEvents,
)
from specee.app.engine.wire import read_message, write_message
from specee.app.engine.worker import take_pipes, wake_when_alone
from specee.app.options import LoadOptions

PROGRAM = "import sys; sys.path[:] = {path!r}; from fault_engine import main; main()"
TOKENS, SECONDS = 1000, 1 / 300


def start(load: LoadOptions) -> EngineProcess:
    assert load.data_dir is not None
    return EngineProcess(Path(load.data_dir) / "logs", PROGRAM)


def main() -> None:
    wake_when_alone()
    inbox, outbox = take_pipes()
    Heartbeat(lambda message: write_message(outbox, message)).start()
    cancelled = threading.Event()
    answering: list[threading.Thread] = []
    while True:
        try:
            message = read_message(inbox)
        except EOFError:
            sys.exit()
        if isinstance(message, Load):
            write_message(outbox, ModelLoaded(ModelInfo("fake", "fake.gguf", "llama", 30, 4096, 1)))
        elif isinstance(message, Generate):
            cancelled.clear()
            answering = [threading.Thread(target=_answer, args=(message, outbox, cancelled), daemon=True)]
            answering[0].start()
        elif isinstance(message, Cancel):
            cancelled.set()
        elif isinstance(message, Close):
            sys.exit()


def _answer(asked: Generate, outbox: object, cancelled: threading.Event) -> None:
    first = asked.messages[-1].content.count(" ") if asked.continue_answer else 0

    def send(message: object) -> None:
        write_message(outbox, OfRequest(asked.request, message))  # type: ignore[arg-type]

    send(Started("dense", "fake", 10, 0, 1))
    for index in range(TOKENS - first):
        if cancelled.wait(SECONDS):
            break
        event = ChatEvent(index, f"{first + index} ", 1, 30, "verified", 0.0)
        send(TokenEvents((event,)))
    reason = "cancelled" if cancelled.is_set() else "stop"
    stats = Stats(10, 0, TOKENS, 0.1, 1.0, 300.0, 30.0, 30, "dense", "fake", reason, 1)
    send(Done(stats))
