"""Answers on the screen: they grow, are stopped, fail, and fit."""

from __future__ import annotations

import pytest
from fake_session import FakeSession, answers, chat, idle, in_mid_answer, ready, screen, submit, until

from specee.app.errors import AppError
from specee.app.tui.prompt_input import PromptInput
from specee.app.tui.session_thread import EventsReady, JobEnded


async def test_an_answer_appears_with_its_figures() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi [bold]there[/bold]")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.2)
        assert session.sent[0][0] == "Hi [bold]there[/bold]"
        assert answers(pilot.app) == ["**Bold** words here"]
        shown = screen(pilot.app)
        assert "Hi [bold]there[/bold]" in shown and "Bold words here" in shown and "?" not in shown.split("Bold")[1]
        assert "81.5 tokens/s, dense here 79.9" in shown
        assert "1 of 3 tokens skipped layers (policy exact: exits reach 1.02x of dense here)" in shown
        assert "█" in shown


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (40, 12)])
async def test_it_fits_small_screens(size: tuple[int, int]) -> None:
    session = FakeSession("long " * 80 + "end")
    async with chat(session).run_test(size=size) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await pilot.pause(0.3)
        shown = screen(pilot.app)
        assert "tokens/s" in shown and "end" in shown
        assert all(len(line) <= size[0] for line in shown.splitlines())
        prompt = pilot.app.query_one(PromptInput).region
        assert prompt.bottom <= size[1] and prompt.height >= 3


async def test_escape_stops_and_what_came_stays() -> None:
    session = FakeSession("one two three four")
    async with in_mid_answer(session, 2) as pilot:
        await submit(pilot, "too early")
        await pilot.pause(0.05)
        assert pilot.app.query_one(PromptInput).text == "too early" and len(session.sent) == 1
        await pilot.press("escape")
        await until(pilot, lambda: idle(pilot.app))
        assert answers(pilot.app) == ["one two"]
        session.gate = None
        await submit(pilot, "again")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert answers(pilot.app) == ["one two", "one two three four"]


async def test_a_text_sent_while_loading_is_answered_after_it() -> None:
    session = FakeSession()
    session.loaded.clear()
    async with chat(session).run_test() as pilot:
        await until(pilot, lambda: "loading the model 40%" in screen(pilot.app))
        await submit(pilot, "early")
        session.loaded.set()
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert session.sent[0][0] == "early"


async def test_errors_are_messages_and_the_next_text_tries_again() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        session.error = AppError("engine crashed", "signal 9 (SIGKILL); try again to restart it")
        await submit(pilot, "Hi")
        await until(pilot, lambda: "engine crashed: signal 9" in screen(pilot.app))
        assert "Traceback" not in screen(pilot.app)
        await until(pilot, lambda: idle(pilot.app))
        await submit(pilot, "Hi again")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert answers(pilot.app) == ["**Bold** words here"]


async def test_a_flood_is_shown_whole() -> None:
    text = " ".join(str(n) for n in range(3000))
    session = FakeSession(text)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert answers(pilot.app) == [text]


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
    async with in_mid_answer(session, 1) as pilot:
        if key == "ctrl+c":  # once stops it, as in other programs
            await pilot.press(key)
            await until(pilot, session.cancelled.is_set)
            assert pilot.app.return_code is None
        await pilot.press(key)
        await until(pilot, lambda: pilot.app.return_code is not None)
    assert session.closes and pilot.app.return_code == 0


async def test_what_comes_while_the_screen_closes_is_dropped() -> None:
    app = chat(FakeSession())
    async with app.run_test() as pilot:
        await pilot.pause()
    with app._context():
        app.tick()
        app.on_events_ready(EventsReady())
        app.on_job_ended(JobEnded())
