"""The screen with Pilot and a session that says what the test wants."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Markdown

from specee.app.errors import AppError
from specee.app.history.store import Store
from specee.app.options import ChatOptions, LoadOptions
from specee.app.protocol import (
    Cancel,
    ChatEvent,
    Done,
    Failed,
    Generate,
    Load,
    Loaded,
    ModelInfo,
    Progress,
    PromptProgress,
    Started,
    Stats,
    Tokens,
)
from specee.app.session import Session
from specee.app.tui.app import ChatApp
from specee.app.tui.conversation import Notice
from specee.app.tui.prompt import Prompt
from specee.app.tui.sidebar import Sidebar
from specee.app.tui.state import Gauge
from specee.app.tui.status import Status
from specee.app.tui.views import VIEWS
from specee.app.tui.views.skyline import Skyline
from specee.app.tui.worker import Ended, EventsReady
from specee.models.progress import Progress as Transferred

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


class FakeSession(Session):
    """A real session whose engine answers `answer`, a token a word, and waits before each when `gate` is set."""

    def __init__(
        self,
        answer: str = "**Bold** words here",
        load_error: AppError | None = None,
        store: Store | None = None,
    ) -> None:
        super().__init__(LoadOptions(), None, self._start, store)
        self.answer = answer
        self.load_error = load_error
        self.asked: list[Generate] = []
        self.loads: list[LoadOptions] = []
        self.cancelled = threading.Event()
        self.loaded = threading.Event()
        self.loaded.set()
        self.gate: threading.Semaphore | None = None
        self.closes = 0
        self.error: AppError | None = None
        self.stats = figures()

    @property
    def sent(self) -> list[tuple[str, ChatOptions]]:
        return [(asked.messages[-1].content, asked.options) for asked in self.asked]

    def _start(self, load: LoadOptions) -> ScriptedLink:
        self.loads.append(load)
        return ScriptedLink(self)

    def close(self) -> None:
        self.closes += 1
        self.cancelled.set()
        self.loaded.set()
        super().close()


class ScriptedLink:
    """The engine of a FakeSession, as a thread."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.alive = True
        self.killed = threading.Event()
        self._inbox: queue.Queue[Any] = queue.Queue()

    def send(self, message: Any) -> None:
        if isinstance(message, Cancel):
            self.session.cancelled.set()
        else:
            threading.Thread(target=self._serve, args=(message,), daemon=True).start()

    def receive(self, timeout: float | None = None) -> Any:
        return self._inbox.get(timeout=timeout)

    def kill(self) -> None:
        self.killed.set()
        self.alive = False
        self._inbox.put(Failed("engine crashed", "signal 9 (SIGKILL)", fatal=True))

    def close(self) -> None:
        self.alive = False

    def _serve(self, message: Any) -> None:
        session, put = self.session, self._inbox.put
        if isinstance(message, Load):
            put(Progress("loading the model", 0.4))
            session.loaded.wait(10)
            error = session.load_error
            put(Loaded(INFO) if error is None else Failed(error.title, error.message, error.exit_code, fatal=True))
            return
        session.asked.append(message)
        session.cancelled.clear()
        if session.error is not None:
            error, session.error = session.error, None
            put(Failed(error.title, error.message, error.exit_code, fatal=error.exit_code == 1))
            return
        put(PromptProgress(12, 12))
        put(Started("exact", "exits reach 1.02x of dense here", 12, 0, 1, 79.9))
        reason = "stop"
        words = session.answer.split(" ")
        begun = message.messages[-1].content.count(" ") + 1 if message.go_on else 0
        for index, word in enumerate(words[begun:]):
            while session.gate is not None and not session.gate.acquire(timeout=0.01):
                if session.cancelled.is_set() or self.killed.is_set():
                    break
            if self.killed.is_set():
                return
            if session.cancelled.is_set():
                reason = "cancelled"
                break
            put(Tokens(tuple(_events(index, word if index + begun == 0 else " " + word))))
        put(Done(replace(session.stats, stop_reason=reason)))


def _events(index: int, text: str) -> Iterator[ChatEvent]:
    layer = 24 if index % 2 else 30
    t = 0.01 * index
    scores = ((20, 0.31), (24, 0.92))
    if layer < 30:
        yield ChatEvent(index, "?", 1, layer, "provisional", t)
        yield ChatEvent(index, "", 1, layer, "rolled_back", t)
        yield ChatEvent(index, text, 2, layer, "provisional", t, scores, (2, 5, 7, 9))
    yield ChatEvent(index, text, 2, layer, "verified", t, scores)


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


async def test_a_model_is_fetched_with_its_progress_and_esc_keeps_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = [], threading.Event()

    def pull(name: str, on_progress: Any, *, offline: bool) -> Path:
        asked.append((name, offline))
        while not go_on.wait(0.02):
            on_progress(Transferred(30_000_000, 100_000_000, 5e6, 14.0))
        return Path(__file__)

    monkeypatch.setattr("specee.models.pull.pull", pull)
    async with chat(FakeSession()).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await say(pilot, "/pull llama3.2-1b")
        await until(pilot, lambda: "fetching llama3.2-1b:  30%  30.0 MB of 100.0 MB" in screen(pilot.app))
        await pilot.press("escape")
        await until(pilot, lambda: "stopped: what has come is kept" in screen(pilot.app) and idle(pilot.app))
        await say(pilot, "/pull llama3.2-1b")
        await until(pilot, lambda: len(asked) == 2)
        go_on.set()
        await until(pilot, lambda: "llama3.2-1b is here" in screen(pilot.app) and idle(pilot.app))
        await say(pilot, "/pull")
        await say(pilot, "/model no-such-model")
        await until(pilot, lambda: "which model" in screen(pilot.app) and "no-such-model" in screen(pilot.app))
        assert asked == [("llama3.2-1b", False)] * 2


async def test_another_model_answers(tmp_path: Path) -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        (tmp_path / "other.gguf").write_bytes(b"GGUF")
        await say(pilot, f"/model {tmp_path}/other.gguf")
        await until(pilot, lambda: session.loads[-1].model == f"{tmp_path}/other.gguf" and idle(pilot.app))
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))


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
        await until(pilot, lambda: session.chat is None)
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
        skyline.show(gauge, 30)
        picture = skyline.render()
        rows = picture.plain.split("\n")
        assert [row[0] for row in rows] == ["█"] * 4
        assert [row[1] for row in rows] == [" ", " ", "█", "█"]
        dim = [bool(getattr(span.style, "dim", False)) for span in picture.spans]
        assert dim.count(True) == 4
        assert pilot.app.query_one(Status).size.height == 2


# ---- turns ----------------------------------------------------------------------------------------------------------


async def test_retry_edit_branch_and_continue() -> None:
    session = FakeSession("one two three four")
    session.gate = threading.Semaphore(2)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: answers(pilot.app) == ["one two"])
        await pilot.press("escape")
        await until(pilot, lambda: idle(pilot.app))
        assert "stopped: /continue goes on" in screen(pilot.app)
        session.gate = None
        await say(pilot, "/continue")
        await until(pilot, lambda: len(session.asked) == 2 and idle(pilot.app))
        assert session.asked[1].go_on and answers(pilot.app) == ["one two three four"]
        session.answer = "another one"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(session.asked) == 3 and idle(pilot.app))
        assert answers(pilot.app) == ["another one"] and "branch 2 of 2" in screen(pilot.app)
        await say(pilot, "/branch 1")
        await until(pilot, lambda: answers(pilot.app) == ["one two three four"])
        await pilot.press("up")
        assert pilot.app.query_one(Prompt).text == "Hi"
        await say(pilot, "Ho")
        await until(pilot, lambda: len(session.asked) == 4 and idle(pilot.app))
        assert session.sent[-1][0] == "Ho" and session.path[0].siblings == 2
        assert "Ho" in screen(pilot.app) and answers(pilot.app) == ["another one"]


async def test_an_engine_that_dies_leaves_the_chat_and_goes_on() -> None:
    session = FakeSession("one two three four")
    session.gate = threading.Semaphore(2)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: answers(pilot.app) == ["one two"])
        await say(pilot, "/restart")
        await until(pilot, lambda: idle(pilot.app))
        shown = screen(pilot.app)
        assert "engine crashed: signal 9" in shown and "/continue or /retry starts it again" in shown
        assert "interrupted: /continue goes on" in shown
        session.gate = None
        await say(pilot, "/continue")
        await until(pilot, lambda: answers(pilot.app) == ["one two three four"] and idle(pilot.app))


async def test_a_refused_question_goes_back_into_the_prompt() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        session.error = AppError("prompt too long", "it has 9000 tokens", 5)
        await say(pilot, "a long one")
        await until(pilot, lambda: "prompt too long" in screen(pilot.app) and idle(pilot.app))
        assert "/summarize" in screen(pilot.app)
        assert pilot.app.query_one(Prompt).text == "a long one" and session.store.chats() == []


async def test_the_window_is_told_and_room_is_made() -> None:
    session = FakeSession("an answer of some words")
    session.stats = figures(prompt_tokens=3600)
    async with chat(session).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        for number in range(3):
            await say(pilot, f"question {number}")
            await until(pilot, lambda n=number: len(session.asked) == n + 1 and idle(pilot.app))
        assert "window 3603/4096" in screen(pilot.app) and "the window is 88% full" in screen(pilot.app)
        await say(pilot, "/drop")
        await pilot.pause(0.1)
        assert "not sent to the model any more" in screen(pilot.app) and len(session.turns) == 2
        await say(pilot, "/drop")
        await pilot.pause(0.1)
        assert "no room to make" in screen(pilot.app)


# ---- chats ----------------------------------------------------------------------------------------------------------


async def test_chats_at_the_side() -> None:
    store = Store()
    for title in ("About foxes", "About the sea"):
        made = store.begin(title, None, {"temperature": 0.3})
        recorder = store.answer(made.id, store.ask(made.id, None, title))
        recorder.add(ChatEvent(0, f"*{title}* indeed", 1, 30, "verified", 0.0))
        recorder.finish("interrupted")
    async with chat(FakeSession(store=store)).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        assert pilot.app.query_one(Sidebar).display and "About the sea" in screen(pilot.app)
        await say(pilot, "/search foxes")
        await pilot.pause(0.1)
        await pilot.press("enter", "enter")
        await until(pilot, lambda: answers(pilot.app) == ["*About foxes* indeed"])
        assert pilot.app.options.sampling.temperature == 0.3  # the chat's own
        await pilot.pause(0.1)
        assert "█" in screen(pilot.app)  # the depths of a kept answer
        assert "interrupted: /continue goes on" in screen(pilot.app)
        await pilot.press("ctrl+b")
        assert not pilot.app.query_one(Sidebar).display
        assert pilot.app.query_one(Prompt).has_focus


async def test_the_side_folds_away_on_narrow_screens() -> None:
    async with chat(FakeSession()).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        assert not pilot.app.query_one(Sidebar).display
        await pilot.press("ctrl+b")
        assert pilot.app.query_one(Sidebar).display
        await pilot.press("escape")
        assert pilot.app.query_one(Prompt).has_focus


async def test_a_long_chat_shows_its_end_first() -> None:
    store = Store()
    made = store.begin("long", None, {})
    parent = None
    for number in range(60):
        question = store.ask(made.id, parent, f"question {number}")
        recorder = store.answer(made.id, question)
        recorder.add(ChatEvent(0, f"answer {number}", 1, 30, "verified", 0.0))
        recorder.finish("complete")
        parent = recorder.turn.id
    session = FakeSession(store=store)
    session.resume(made.id)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        assert answers(pilot.app)[0] == "answer 50" and len(answers(pilot.app)) == 10
        await say(pilot, "/earlier")
        await until(pilot, lambda: len(answers(pilot.app)) == 60)


# ---- commands and keys ----------------------------------------------------------------------------------------------


async def test_what_comes_while_the_screen_closes_is_dropped() -> None:
    app = chat(FakeSession())
    async with app.run_test() as pilot:
        await pilot.pause()
    app._stale, app._pending_text = True, "late"
    with app._context():
        await app._show_pending()
        await app.on_events_ready(EventsReady())
        await app.on_ended(Ended())


async def test_commands_are_completed_and_listed() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        await pilot.press("/", "s", "u")
        await pilot.pause(0.05)
        assert "a summary takes the place" in screen(pilot.app)
        await pilot.press("tab")
        assert pilot.app.query_one(Prompt).text == "/summarize "
        await say(pilot, "/help")
        await pilot.pause(0.1)
        assert any("/export" in str(notice.render()) for notice in pilot.app.query(Notice))


async def test_copy_and_export(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession("Look:\n```python\nprint(1)\n```\nand\n```\nsecond\n```")
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.press("ctrl+y")
        assert pilot.app.clipboard == session.answer
        await say(pilot, "/copy code 1")
        await pilot.pause(0.05)
        assert pilot.app.clipboard == "print(1)"
        await say(pilot, "/copy code")
        await pilot.pause(0.05)
        assert pilot.app.clipboard == "second"
        for name in ("chat.md", "chat.json"):
            await say(pilot, f"/export {tmp_path / name}")
            await pilot.pause(0.1)
        assert "print(1)" in (tmp_path / "chat.md").read_text() and '"branch"' in (tmp_path / "chat.json").read_text()
        await say(pilot, f"/export {tmp_path / 'no' / 'such'}")
        await pilot.pause(0.1)
        assert "No such file" in screen(pilot.app)


async def test_settings_of_a_chat() -> None:
    session = FakeSession()
    async with ChatApp(session, ChatOptions(), {"tutor": "Explain."}).run_test() as pilot:
        await ready(pilot)
        for line in ("/set temperature 0.1", "/set seed 3", "/persona tutor", "/threshold 0.4", "/set temperature hot"):
            await say(pilot, line)
        await pilot.pause(0.1)
        assert "bad value" in screen(pilot.app)
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        asked = session.asked[0]
        assert asked.messages[0].content == "Explain."
        assert (asked.options.sampling.temperature, asked.options.sampling.seed) == (0.1, 3)
        assert asked.options.policy.threshold == 0.4 and session.chat is not None
        assert session.chat.options["temperature"] == 0.1
        await say(pilot, "/theme textual-light")
        await pilot.pause(0.1)
        assert pilot.app.theme == "textual-light"


# ---- views of the depth ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("skyline", "█"),
        ("lens", "Bold"),
        ("elevator", "got off early"),
        ("inspector", "candidates"),
        ("dial", "threshold calibrated"),
        ("odometer", "layers left out"),
        ("ledger", "exits 1 of 3"),
    ],
)
async def test_views(name: str, says: str) -> None:
    session = FakeSession()
    counts = ("exits", "probes", "checks", "checks_failed", "rolled_back", "check_seconds", "draft_seconds")
    session.stats = figures(policy_stats={**dict.fromkeys(counts, 1), "tokens": 3})
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await say(pilot, f"/view {name}")
        await pilot.pause(0.05)
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.1)
        assert isinstance(pilot.app.query_one(VIEWS[name]), VIEWS[name]) and says in screen(pilot.app)
        await pilot.press("f2")
        await pilot.pause(0.05)
        assert not pilot.app.query(VIEWS[name])


async def test_the_inspector_moves_over_tokens() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await say(pilot, "/view inspector")
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.press("ctrl+left")
        await pilot.pause(0.05)
        shown = screen(pilot.app)
        assert "token 2 of 3" in shown and "left early" in shown and "24:0.92" in shown and "2 5 7 9" in shown


async def test_the_dial_turns_with_brackets() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await say(pilot, "/view dial")
        await pilot.pause(0.05)
        await pilot.press("[", "[")
        await pilot.pause(0.05)
        assert "threshold 0.60" in screen(pilot.app)
        await pilot.press("a", "[")
        assert pilot.app.query_one(Prompt).text == "a["


async def test_the_odometer_says_when_exits_are_slower() -> None:
    gauge = Gauge()
    gauge.finish(figures(tokens=100, tokens_per_second=40.0, dense_rate=80.0))
    assert gauge.seconds_saved == pytest.approx(-1.25) and gauge.layers_saved == 270
    gauge.finish(figures(policy="dense", tokens_per_second=90.0, dense_rate=None))
    assert gauge.dense_rate == 90.0 and gauge.layers_saved == 270


async def test_without_colours_glyphs_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    session = FakeSession()
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await say(pilot, "/view lens")
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.1)
        assert "█" in screen(pilot.app) and "▆" in screen(pilot.app)  # under the words
        gauge = Gauge()
        gauge.add(ChatEvent(0, "x", 1, 30, "provisional", 0.0))
        await pilot.app.set_view("skyline")
        skyline = pilot.app.query_one(Skyline)
        skyline.show(gauge, 30)
        assert "▒" in skyline.render().plain


async def test_a_race_marks_the_first_difference() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 40)) as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await say(pilot, "/race")
        await until(pilot, lambda: len(session.asked) == 3 and idle(pilot.app))
        await pilot.pause(0.2)
        assert [asked.options.policy.name for asked in session.asked[1:]] == ["dense", "auto"]
        assert "the same words" in screen(pilot.app)
        assert len(session.store.tree(session.chat.id)) == 2  # nothing of it is kept


async def test_f2_goes_through_the_views() -> None:
    async with chat(FakeSession()).run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        for name in [*list(VIEWS)[1:], "skyline"]:
            await pilot.press("f2")
            await until(pilot, lambda name=name: bool(pilot.app.query(VIEWS[name])))


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light"])
@pytest.mark.parametrize("width", [60, 80, 120])
async def test_what_stands_on_the_screen_at_each_width(width: int, theme: str) -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(width, 24)) as pilot:
        pilot.app.theme = theme
        await ready(pilot)
        await say(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.2)
        shown = screen(pilot.app)
        assert "Bold words here" in shown and "tokens/s" in shown and "exits ON (exact)" in shown
        assert ("Search all chats" in shown) == (width >= 100)
        assert pilot.app.query_one(Prompt).region.bottom <= 24
