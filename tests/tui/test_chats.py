"""Chats at the side, and long ones."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fake_session import FakeSession, answers, chat, idle, in_mid_answer, notices, ready, screen, submit, until
from textual.widgets import Input, OptionList

from specee.app.chat.history.store import Store
from specee.app.engine.protocol import ChatEvent
from specee.app.tui.prompt_input import PromptInput
from specee.app.tui.sidebar import Sidebar


async def test_chats_at_the_side() -> None:
    store = Store()
    for title in ("About foxes", "About the sea"):
        made = store.new_chat(title, None, {"temperature": 0.3})
        recorder = store.add_answer(made.id, store.add_question(made.id, None, title))
        recorder.add(ChatEvent(0, f"*{title}* indeed", 1, 30, "verified", 0.0))
        recorder.finish("interrupted")
    async with chat(FakeSession(store=store)).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        assert pilot.app.query_one(Sidebar).display and "About the sea" in screen(pilot.app)
        await submit(pilot, "/search foxes")
        await until(pilot, lambda: "About the sea" not in screen(pilot.app))
        await pilot.press("enter", "enter")
        await until(pilot, lambda: answers(pilot.app) == ["*About foxes* indeed"])
        assert pilot.app.options.sampling.temperature == 0.3  # the chat's own
        await pilot.pause(0.1)
        assert "█" in screen(pilot.app)  # the layers of a stored answer
        assert "interrupted: /continue goes on" in screen(pilot.app)
        await pilot.press("ctrl+b")
        assert not pilot.app.query_one(Sidebar).display
        assert pilot.app.query_one(PromptInput).has_focus


async def test_a_turn_that_is_found_is_shown_in_its_branch() -> None:
    store = Store()
    made = store.new_chat("animals", None, {})
    question = store.add_question(made.id, None, "Which animal?")
    for text in ("a walrus", "a heron"):
        recorder = store.add_answer(made.id, question)
        recorder.add(ChatEvent(0, text, 1, 30, "verified", 0.0))
        recorder.finish("complete")
    async with chat(FakeSession(store=store)).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        for word in ("walrus", "heron"):
            await submit(pilot, f"/search {word}")
            await until(pilot, lambda: pilot.app.query_one(Sidebar).query_one(Input).has_focus)
            await pilot.press("enter")  # before it is found
            await until(pilot, lambda: pilot.app.query_one(OptionList).has_focus)
            await pilot.press("enter")
            await until(pilot, lambda word=word: answers(pilot.app) == [f"a {word}"])


async def test_keys_do_not_wait_for_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    store.add_question(store.new_chat("sea", None, {}).id, None, "Where is the sea?")
    going_on = threading.Event()
    find = store.search

    def slow(words: str, limit: int = 50) -> Any:
        going_on.wait(20)
        return find(words, limit)

    monkeypatch.setattr(store, "search", slow)
    async with chat(FakeSession(store=store)).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "/search sea")
        await pilot.pause(0.3)
        await pilot.press("escape", "x")
        assert pilot.app.query_one(PromptInput).text == "x"
        assert pilot.app.query_one(Sidebar)._searched == ""
        going_on.set()
        await until(pilot, lambda: pilot.app.query_one(Sidebar)._searched == "sea")


async def test_the_side_is_hidden_on_narrow_screens() -> None:
    async with chat(FakeSession()).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        assert not pilot.app.query_one(Sidebar).display
        await pilot.press("ctrl+b")
        assert pilot.app.query_one(Sidebar).display
        await pilot.press("escape")
        assert pilot.app.query_one(PromptInput).has_focus


def long_chat(turns: int) -> FakeSession:
    store = Store()
    made = store.new_chat("long", None, {})
    parent = None
    for number in range(turns):
        question = store.add_question(made.id, parent, f"question {number}")
        recorder = store.add_answer(made.id, question)
        recorder.add(ChatEvent(0, f"answer {number}", 1, 30, "verified", 0.0))
        recorder.finish("complete")
        parent = recorder.turn.id
    session = FakeSession(store=store)
    session.resume(made.id)
    return session


async def test_a_long_chat_shows_its_end_first_and_more_in_pages() -> None:
    async with chat(long_chat(60)).run_test() as pilot:
        await ready(pilot)
        assert answers(pilot.app)[0] == "answer 50" and len(answers(pilot.app)) == 10
        await pilot.press("pageup")
        await pilot.pause(0.05)
        before = screen(pilot.app)
        await submit(pilot, "/earlier")
        await until(pilot, lambda: len(answers(pilot.app)) == 30)
        await pilot.pause(0.05)
        assert [line[:40] for line in screen(pilot.app).split("\n")[:8]] == [
            line[:40] for line in before.split("\n")[:8]
        ]  # what was in view stays there
        for _ in range(60):
            await pilot.press("pageup")
        await until(pilot, lambda: len(answers(pilot.app)) == 60)
        assert "earlier turns" not in "".join(notices(pilot.app))
        await submit(pilot, "/earlier")
        await until(pilot, lambda: any("nothing earlier" in notice for notice in notices(pilot.app)))


async def test_new_text_does_not_move_what_the_user_has_scrolled_to() -> None:
    session = FakeSession("word " * 2000)
    async with in_mid_answer(session, 1000) as pilot:
        conversation = pilot.app.conversation
        assert conversation.scroll_offset.y == conversation.max_scroll_y > 0
        await pilot.press("pageup")
        await pilot.pause(0.05)
        y = conversation.scroll_offset.y
        session.gate = None
        await until(pilot, lambda: idle(pilot.app))
        assert conversation.scroll_offset.y == y < conversation.max_scroll_y
        for _ in range(30):
            await pilot.press("pagedown")
        await pilot.pause(0.05)
        assert conversation.scroll_offset.y == conversation.max_scroll_y


async def test_what_the_user_asks_for_is_shown_wherever_the_view_is() -> None:
    session = FakeSession("line\n\n" * 40)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: len(session.asked) == 1 and idle(pilot.app))
        for text, shown in (("/set temperature 99", "from 0 to 10"), ("/rename Rain", "Rain"), ("Why?", "▌ Why?")):
            await pilot.press("pageup", "pageup")
            await until(pilot, lambda: pilot.app.conversation.scroll_offset.y < pilot.app.conversation.max_scroll_y)
            session.gate = threading.Semaphore(0)
            await submit(pilot, text)
            await until(pilot, lambda shown=shown: shown in screen(pilot.app))
        session.gate = None
        await until(pilot, lambda: idle(pilot.app))
