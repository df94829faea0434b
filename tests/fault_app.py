"""A program that chats for ever and prints what it has shown, and when: fault_app.py DATA fake|real."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import fault_engine

from specee.app.chat.history.store import Store
from specee.app.chat.session import Session
from specee.app.engine.client import start_process
from specee.app.engine.protocol import ChatEvent
from specee.app.options import ChatOptions, LoadOptions


def main(data: str, engine: str) -> None:
    store = Store(Path(data) / "history.sqlite")
    start = fault_engine.start if engine == "fake" else start_process
    session = Session(LoadOptions(data_dir=data), start=start, store=store)
    chats = store.chats()
    if chats:
        session.resume(chats[0].id)
    interrupted = bool(session.branch) and session.branch[-1].state == "interrupted"
    while True:
        question, options = f"question {len(session.branch) // 2}", ChatOptions()
        events = session.continue_answer(options) if interrupted else session.send(question, options)
        interrupted = False
        shown = 0
        for event in events:
            if isinstance(event, ChatEvent):
                begun = session.branch[-1]  # as the store had it when the answer began, or began again
                shown += len(event.text)
                print(time.monotonic(), begun.id, len(begun.content) + shown, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
