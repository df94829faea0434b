"""How smooth the screen is: python tests/benchmarks/screen_smoothness.py [--tokens N] [--rate N] [--turns N].

A long answer, then a long chat, are drawn to a pseudo terminal; the answers come from the fake session of tests/tui.
Times are milliseconds. "lag": how late the event loop comes to a task that wants to run every 5 ms; "flush": what one
tick of the screen takes; "key": a letter for the prompt, five times a second while the answer grows, until it is drawn;
"paste": a text of 1 MB, and "after": a letter behind it; "scroll": a page up; "earlier": a page of older turns, each
until it is drawn. CPU is the share of one core. "start" is the program itself, from its start until a letter is drawn
that is typed as soon as the prompt is there.
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
from textual.events import Key, Paste

from specee.app.chat.history.store import Store
from specee.app.engine.protocol import ChatEvent
from specee.app.options import ChatOptions
from specee.app.tui.app import ChatApp

BEAT = 0.005
STEP_SECONDS = 0.1  # between tokens that come at once
KEY_SECONDS = 0.2
PASTED = "A line of a text that was pasted. " * (1_000_000 // 34)
STARTS = 5


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
        elif n % 1000 < 510:
            words += [f"\n- sum $\\frac{{n_{{{i}}}^2}}{{\\sqrt{{x}}}}$ and 👩‍👩‍👧 🇫🇷 👍🏽" for i in range(10)] + [
                "\n\n"
            ]
        elif n % 1000 < 530:
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

    async def press(self, key: str) -> float:
        """Seconds until a letter stands in the prompt."""
        begun, length = time.perf_counter(), len(self.prompt.text)
        self.post_message(Key(key, key))
        while len(self.prompt.text) == length:
            await asyncio.sleep(0.001)
        await self.drawn()
        return time.perf_counter() - begun

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
    def __init__(self, session: FakeSession, report: Path, rate: int, pages: int) -> None:
        super().__init__(session, report)
        self._rate, self._pages = rate, pages

    async def measure(self) -> dict[str, Any]:
        gate = self._fake.gate = threading.Semaphore(0)
        await self.controller.submit("Hi")
        keys: list[float] = []
        typing = asyncio.ensure_future(self._type(keys))
        while self.busy:
            for _ in range(round(self._rate * STEP_SECONDS)):
                gate.release()
            await asyncio.sleep(STEP_SECONDS)
        typing.cancel()
        await asyncio.sleep(1.0)
        self.prompt.clear()
        begun = time.perf_counter()
        self.post_message(Paste(PASTED))
        while not self.prompt.text:
            await asyncio.sleep(0.001)
        await self.drawn()
        pasted = {"text": 1000 * (time.perf_counter() - begun), "after": 1000 * await self.press("a")}
        found = {"flush": summary(self._flushes), "key": summary(keys), "paste": pasted}
        self.prompt.clear()
        return {**found, "scroll": await self.scroll(self._pages)}

    async def _type(self, keys: list[float]) -> None:
        while True:
            keys.append(await self.press("a"))
            await asyncio.sleep(KEY_SECONDS)


class LongChat(Measured):
    def __init__(self, session: FakeSession, report: Path, pages: int) -> None:
        super().__init__(session, report)
        self._pages = pages

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
        return {"earlier": summary(pages), "scroll": await self.scroll(self._pages)}


def starts() -> dict[str, float]:
    """The program is started again and again, with folders of its own."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        variables = {"SPECEE_DATA_DIR": folder, "XDG_CONFIG_HOME": folder}
        for _ in range(STARTS):
            seconds.append(pseudo_terminal.time_to_type([sys.executable, "-m", "specee.app.cli.main"], variables))
    return summary(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10000)
    parser.add_argument("--rate", type=int, default=200, help="tokens a second")
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--pages", type=int, default=300, help="to scroll")
    parser.add_argument("--only", choices=["answer", "chat", "start"])
    parser.add_argument("--inside", nargs=2)
    options = parser.parse_args()
    if options.inside:
        what, report = options.inside
        if what == "answer":
            LongAnswer(FakeSession(long_answer(options.tokens)), Path(report), options.rate, options.pages).run()
        else:
            LongChat(long_chat(options.turns), Path(report), options.pages).run()
        return
    titles = {"answer": f"an answer of {options.tokens} tokens", "chat": f"a chat of {options.turns} turns"}
    for what, title in titles.items():
        if options.only not in (None, what):
            continue
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            names = ("tokens", "rate", "turns", "pages")
            sizes = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
            code, end = pseudo_terminal.run([sys.executable, __file__, *sizes, "--inside", what, str(report)])
            if code or not report.exists():
                sys.exit(f"{end}\n{title}: it ended with {code}")
            _print(title, json.loads(report.read_text()))
    if options.only in (None, "start"):
        _print("start", {"key": starts()})


def _print(title: str, found: dict[str, dict[str, float]]) -> None:
    print(title)
    for name, values in found.items():
        print(f"  {name:8}", "  ".join(f"{key} {value:.2f}" for key, value in values.items()))


if __name__ == "__main__":
    main()
