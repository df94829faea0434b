"""The screen with Pilot and a session that says what the test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Markdown

from specee.app.errors import AppError
from specee.app.options import ChatOptions
from specee.app.protocol import ChatEvent, Done, ModelInfo, Progress, PromptProgress, Started, Stats
from specee.app.tui.app import ChatApp
from specee.app.tui.state import Gauge
from specee.app.tui.widgets import Notice, Prompt, Skyline, Status

INFO = ModelInfo("smollm2-135m", "m.gguf", "llama", 30, 4096, 2, None, True)


def figures(**changes: Any) -> Stats:
    values: dict[str, Any] = {
        "prompt_tokens": 12,
        "reused": 0,
        "tokens": 3,
        "ttft_s": 0.1,
        "total_s": 0.2,
        "tokens_per_second": 81.5,
        "mean_exit_layer": 27.3,
        "n_layers": 30,
        "policy": "exact",
        "policy_reason": "exits reach 1.02x of dense here",
        "stop_reason": "stop",
        "seed": 1,
        "dense_rate": 79.9,
    }
    return Stats(**{**values, **changes})


class FakeSession:
    """Answers `answer`, a token a word, and waits before each when `gate` is set."""

    def __init__(self, answer: str = "**Bold** words here", load_error: AppError | None = None) -> None:
        self.info: ModelInfo | None = None
        self.answer = answer
        self.load_error = load_error
        self.sent: list[tuple[str, ChatOptions]] = []
        self.cancelled = threading.Event()
        self.loaded = threading.Event()
        self.loaded.set()
        self.gate: threading.Semaphore | None = None
        self.news = self.closes = 0
        self.error: AppError | None = None

    def open(self) -> Iterator[Progress]:
        if self.info is None:
            yield Progress("loading the model", 0.4)
            self.loaded.wait(10)
            if self.load_error is not None:
                raise self.load_error
            self.info = INFO

    def send(self, text: str, options: ChatOptions) -> Iterator[Any]:
        yield from self.open()
        self.sent.append((text, options))
        self.cancelled.clear()
        if self.error is not None:
            error, self.error, self.info = self.error, None, None
            raise error
        yield PromptProgress(12, 12)
        yield Started("exact", "exits reach 1.02x of dense here", 12, 0, 1, 79.9)
        reason = "stop"
        for index, word in enumerate(self.answer.split(" ")):
            while self.gate is not None and not self.gate.acquire(timeout=0.01):
                if self.cancelled.is_set():
                    break
            if self.cancelled.is_set():
                reason = "cancelled"
                break
            text = word if index == 0 else " " + word
            layer = 24 if index % 2 else 30
            t = 0.01 * index
            if layer < 30:
                yield ChatEvent(index, "?", 1, layer, "provisional", t)
                yield ChatEvent(index, "", 1, layer, "rolled_back", t)
                yield ChatEvent(index, text, 2, layer, "provisional", t)
            yield ChatEvent(index, text, 2, layer, "verified", t)
        yield Done(figures(stop_reason=reason))

    def cancel(self) -> None:
        self.cancelled.set()

    def new(self) -> None:
        self.news += 1

    def close(self) -> None:
        self.closes += 1
        self.cancelled.set()
        self.loaded.set()


def chat(session: FakeSession) -> ChatApp:
    return ChatApp(session, ChatOptions())


async def until(pilot: Pilot[Any], condition: Any) -> None:
    for _ in range(200):
        if condition():
            return
        await pilot.pause(0.02)
    pytest.fail("it did not happen")


async def say(pilot: Pilot[Any], text: str) -> None:
    pilot.app.query_one(Prompt).cursor_blink = False
    pilot.app.query_one(Prompt).text = text
    await pilot.press("enter")


def screen(app: Any) -> str:
    """What stands on the screen, as text."""
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


def answers(app: Any) -> list[str]:
    return [widget.source for widget in app.query(Markdown)]


def idle(app: Any) -> bool:
    return not app.busy


async def ready(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: idle(pilot.app))


async def test_an_answer_appears_with_its_depths() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await say(pilot, "Hi [bold]there[/bold]")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.2)
        assert session.sent[0][0] == "Hi [bold]there[/bold]"
        assert answers(pilot.app) == ["**Bold** words here"]
        shown = screen(pilot.app)
        assert "Hi [bold]there[/bold]" in shown and "Bold words here" in shown and "?" not in shown.split("Bold")[1]
        assert "81.5 tokens/s (dense 79.9)" in shown and "layer 27.3 of 30" in shown
        assert "exits ON (exact): exits reach 1.02x of dense here" in shown
        assert "█" in shown


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (40, 12)])
async def test_it_fits_small_screens(size: tuple[int, int]) -> None:
    session = FakeSession("long " * 80 + "end")
    async with chat(session).run_test(size=size) as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.3)
        shown = screen(pilot.app)
        assert "tokens/s" in shown and "end" in shown
        assert all(len(line) <= size[0] for line in shown.splitlines())
        prompt = pilot.app.query_one(Prompt).region
        assert prompt.bottom <= size[1] and prompt.height >= 3


async def test_escape_stops_and_what_came_stays() -> None:
    session = FakeSession("one two three four")
    session.gate = threading.Semaphore(2)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: answers(pilot.app) == ["one two"])
        await say(pilot, "too early")
        await pilot.pause(0.05)
        assert pilot.app.query_one(Prompt).text == "too early" and len(session.sent) == 1
        await pilot.press("escape")
        await until(pilot, lambda: idle(pilot.app))
        assert answers(pilot.app) == ["one two"]
        session.gate = None
        await say(pilot, "again")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert answers(pilot.app) == ["one two", "one two three four"]


async def test_a_text_sent_while_loading_is_answered_after_it() -> None:
    session = FakeSession()
    session.loaded.clear()
    async with chat(session).run_test() as pilot:
        await until(pilot, lambda: "loading the model 40%" in screen(pilot.app))
        await say(pilot, "early")
        session.loaded.set()
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert session.sent[0][0] == "early"


async def test_errors_are_messages_and_the_next_text_tries_again() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        session.error = AppError("engine crashed", "signal 9 (SIGKILL); try again to restart it")
        await say(pilot, "Hi")
        await until(pilot, lambda: "engine crashed: signal 9" in screen(pilot.app))
        assert "Traceback" not in screen(pilot.app)
        await until(pilot, lambda: idle(pilot.app))
        await say(pilot, "Hi again")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert answers(pilot.app) == ["**Bold** words here"]


async def test_a_model_that_cannot_be_loaded_is_told() -> None:
    session = FakeSession(load_error=AppError("not a model", "x.gguf is not a GGUF file", 3))
    async with chat(session).run_test() as pilot:
        await until(pilot, lambda: "not a model: x.gguf is not a GGUF file" in screen(pilot.app))


async def test_commands() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await say(pilot, "/policy specee:margin@0.3")
        await say(pilot, "/policy nonsense")
        await say(pilot, "/what")
        await pilot.pause(0.1)
        notices = [str(n.render()) for n in pilot.app.query(Notice)]
        assert any("policy specee:margin@0.3" in n for n in notices)
        assert any("unknown policy" in n for n in notices) and any("/what is no command" in n for n in notices)
        await say(pilot, "Hi")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert session.sent[1][1].policy.label == "specee:margin@0.3"
        await say(pilot, "/new")
        await until(pilot, lambda: session.news == 1)
        await pilot.pause(0.1)
        assert answers(pilot.app) == []
        await say(pilot, "/quit")
        await pilot.pause(0.1)
    assert pilot.app.return_code == 0 and session.closes


async def test_enter_sends_and_ctrl_j_breaks_the_line() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await pilot.press("a", "ctrl+j", "b", "enter")
        await until(pilot, lambda: session.sent)
        assert session.sent[0][0] == "a\nb"
        await pilot.press("enter")
        await pilot.pause(0.05)
        assert len(session.sent) == 1  # nothing to send


@pytest.mark.parametrize("key", ["ctrl+c", "ctrl+q"])
async def test_quit_in_the_middle_of_an_answer(key: str) -> None:
    session = FakeSession("one two three")
    session.gate = threading.Semaphore(1)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: answers(pilot.app) == ["one"])
        await pilot.press(key)
        await pilot.pause(0.1)
    assert session.closes and pilot.app.return_code == 0


async def test_a_flood_is_shown_whole() -> None:
    words = " ".join(str(n) for n in range(3000))
    session = FakeSession(words)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert answers(pilot.app) == [words]


def test_the_gauge_forgets_what_was_withdrawn() -> None:
    gauge = Gauge()
    gauge.begin("exact", "why", 80.0)
    for index, layer in enumerate((30, 24, 26)):
        gauge.add(ChatEvent(index, "x", 1, layer, "verified" if layer == 30 else "provisional", 0.1 * index))
    assert [c.verified for c in gauge.columns] == [True, False, False]
    gauge.add(ChatEvent(1, "", 1, 24, "rolled_back", 0.3))
    assert [c.layer for c in gauge.columns] == [30] and gauge.rolled_back == 2
    gauge.add(ChatEvent(1, "y", 1, 30, "verified", 0.4))
    assert gauge.mean_layer == 30.0 and gauge.rate == pytest.approx(1 / 0.4)


async def test_unverified_columns_are_dim() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        gauge = Gauge()
        gauge.add(ChatEvent(0, "x", 1, 30, "verified", 0.0))
        gauge.add(ChatEvent(1, "x", 1, 15, "provisional", 0.1))
        skyline = pilot.app.query_one(Skyline)
        skyline.show(gauge.columns, 30)
        picture = skyline.render()
        rows = picture.plain.split("\n")
        assert [row[0] for row in rows] == ["█"] * 4
        assert [row[1] for row in rows] == [" ", " ", "█", "█"]
        dim = [bool(getattr(span.style, "dim", False)) for span in picture.spans]
        assert dim.count(True) == 4
        assert pilot.app.query_one(Status).size.height == 2
