"""How smooth the screen is: python tests/benchmarks/screen_smoothness.py [--tokens N] [--turns N].

A long answer, then a long chat, are drawn to a pseudo terminal; the answers come from the fake session of tests/tui.
Times are milliseconds. "lag": how late the event
loop comes to a task that wants to run every 5 ms; "flush": what one tick of the screen takes; "scroll": a page up,
until it is drawn; "earlier": a page of older turns, until it is drawn. CPU is the share of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tui"))

import pseudo_terminal
from fake_session import FakeSession

from specee.app.chat.history.store import Store
from specee.app.engine.protocol import ChatEvent
from specee.app.options import ChatOptions
from specee.app.tui.app import ChatApp

BEAT = 0.005
STEP = 20  # tokens that come at once
STEP_SECONDS = 0.1


def long_answer(tokens: int) -> str:
    """Prose, headings, lists, code, a table now and then, and a paragraph that does not end for long."""
    words: list[str] = []
    while len(words) < tokens:  # there are more than that, since some are several
        n = len(words)
        if n % 1000 < 300:
            words += [f"word{n + i}" + ("." if i % 12 == 11 else "") for i in range(49)] + ["end.\n\n"]
        elif n % 1000 < 400:
            words += [f"\n- **item** {n + i} of a list with `code`" for i in range(20)] + ["\n\n## A heading\n\n"]
        elif n % 1000 < 500:
            words += ["\n```python\n", *(f"def f{i}(x):\n    return x + {i}\n" for i in range(60)), "```\n\n"]
        elif n % 1000 < 520:
            words += ["\n| a | b |\n|---|---|\n", *(f"| {i} | some text {i} |\n" for i in range(20)), "\n"]
        else:
            words += [f"on{i} and *on*" for i in range(480)] + ["\n\n"]
    return " ".join(" ".join(words).split(" ")[:tokens])


def long_chat(turns: int) -> FakeSession:
    store = Store()
    made = store.new_chat("long", None, {})
    parent = None
    for number in range(turns // 2):
        recorder = store.add_answer(made.id, store.add_question(made.id, parent, f"question {number}"))
        text = f"**answer** {number}\n\n" + long_answer(120)
        recorder.add(ChatEvent(0, text, 1, 30, "verified", 0.0))
        recorder.finish("complete")
        parent = recorder.turn.id
    session = FakeSession(store=store)
    session.resume(made.id)
    return session


def summary(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(1000 * value for value in seconds)
    at = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    found = {name: ordered[int(len(ordered) * share)] for name, share in at.items()} if ordered else {}
    return {**found, "worst": ordered[-1] if ordered else 0.0, "count": float(len(ordered))}


class Measured(ChatApp):
    """Does something with the screen, measures, and leaves."""

    def __init__(self, session: FakeSession, report: Path) -> None:
        super().__init__(session, ChatOptions())
        self._fake, self._report = session, report
        self._flushes: list[float] = []

    def on_ready(self) -> None:
        self.run_worker(self._measure())

    async def measure(self) -> dict[str, Any]:
        raise NotImplementedError

    async def _measure(self) -> None:
        while self.busy:
            await asyncio.sleep(0.05)
        await asyncio.sleep(2.0)
        lags: list[float] = []
        beat = asyncio.ensure_future(self._beat(lags))
        cpu, begun = time.process_time(), time.perf_counter()
        found = await self.measure()
        share = (time.process_time() - cpu) / (time.perf_counter() - begun)
        beat.cancel()
        self._report.write_text(json.dumps({**found, "lag": summary(lags), "cpu": {"share": share}}))
        self.exit(0)

    async def _beat(self, lags: list[float]) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(BEAT)
            lags.append(time.perf_counter() - begun - BEAT)

    def tick(self) -> None:
        begun = time.perf_counter()
        super().tick()
        self._flushes.append(time.perf_counter() - begun)

    async def drawn(self) -> None:
        done = asyncio.Event()
        self.call_after_refresh(done.set)
        await done.wait()

    async def scroll(self, pages: int) -> dict[str, float]:
        seconds = []
        for _ in range(pages):
            begun = time.perf_counter()
            self.conversation.scroll_page_up(animate=False)
            await self.drawn()
            seconds.append(time.perf_counter() - begun)
            await asyncio.sleep(0.02)
        return summary(seconds)


class LongAnswer(Measured):
    async def measure(self) -> dict[str, Any]:
        gate = self._fake.gate = threading.Semaphore(0)
        await self.controller.submit("Hi")
        while self.busy:
            for _ in range(STEP):
                gate.release()
            await asyncio.sleep(STEP_SECONDS)
        await asyncio.sleep(2.0)
        return {"flush": summary(self._flushes), "scroll": await self.scroll(300)}


class LongChat(Measured):
    async def measure(self) -> dict[str, Any]:
        pages = []
        while True:
            begun = time.perf_counter()
            if not self.conversation.show_earlier():
                break
            await self.drawn()
            pages.append(time.perf_counter() - begun)
            await asyncio.sleep(0.05)
        self.conversation.scroll_end(animate=False)
        await asyncio.sleep(2.0)
        return {"earlier": summary(pages), "scroll": await self.scroll(300)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10000)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--inside", nargs=2)
    options = parser.parse_args()
    if options.inside:
        what, report = options.inside
        if what == "answer":
            LongAnswer(FakeSession(long_answer(options.tokens)), Path(report)).run()
        else:
            LongChat(long_chat(options.turns), Path(report)).run()
        return
    titles = {"answer": f"an answer of {options.tokens} tokens", "chat": f"a chat of {options.turns} turns"}
    for what, title in titles.items():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            sizes = ["--tokens", str(options.tokens), "--turns", str(options.turns)]
            code, end = pseudo_terminal.run([sys.executable, __file__, *sizes, "--inside", what, str(report)])
            if code or not report.exists():
                sys.exit(f"{end}\n{title}: it ended with {code}")
            print(title)
            for name, values in json.loads(report.read_text()).items():
                print(f"  {name:8}", "  ".join(f"{key} {value:.2f}" for key, value in values.items()))


if __name__ == "__main__":
    main()
