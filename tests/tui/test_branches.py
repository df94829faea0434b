"""/retry, /continue and /edit, which make branches; and a context that gets full."""

from __future__ import annotations

from fake_session import FakeSession, answers, chat, idle, in_mid_answer, make_stats, ready, screen, submit, until
from textual.events import Paste

from specee.app.errors import AppError
from specee.app.tui.prompt_input import PromptInput


async def test_retry_edit_branch_and_continue() -> None:
    session = FakeSession("one two three four")
    async with in_mid_answer(session, 2) as pilot:
        await pilot.press("escape")
        await until(pilot, lambda: idle(pilot.app))
        assert "stopped: /continue goes on" in screen(pilot.app)
        session.gate = None
        await submit(pilot, "/continue")
        await until(pilot, lambda: len(session.asked) == 2 and idle(pilot.app))
        assert session.asked[1].continue_answer and answers(pilot.app) == ["one two three four"]
        session.answer = "another one"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(session.asked) == 3 and idle(pilot.app))
        assert answers(pilot.app) == ["another one"] and "branch 2 of 2" in screen(pilot.app)
        await submit(pilot, "/branch 1")
        await until(pilot, lambda: answers(pilot.app) == ["one two three four"])
        await pilot.press("up")
        assert pilot.app.query_one(PromptInput).text == "Hi"
        await submit(pilot, "Ho")
        await until(pilot, lambda: len(session.asked) == 4 and idle(pilot.app))
        assert session.sent[-1][0] == "Ho" and session.branch[0].siblings == 2
        assert "Ho" in screen(pilot.app) and answers(pilot.app) == ["another one"]


async def test_what_was_typed_comes_back_after_an_edit() -> None:
    async with chat(session := FakeSession()).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: idle(pilot.app))
        prompt = pilot.app.query_one(PromptInput)
        prompt.write("half a sentence")
        for leave in ("escape", "enter"):
            await pilot.press("alt+up", "up", "e")
            await until(pilot, lambda: prompt.text == "Hi")
            assert pilot.app.controller.unsent == "half a sentence\nHi"
            await pilot.press(leave)
            await until(pilot, lambda: idle(pilot.app) and prompt.text == "half a sentence")
        await until(pilot, lambda: len(session.asked) == 2 and idle(pilot.app))
        assert session.branch[0].siblings == 2 and prompt.text == "half a sentence"
        prompt.write("another")
        await pilot.press("ctrl+underscore")
        assert prompt.text == "half a sentence"


async def test_an_engine_that_dies_leaves_the_chat_and_goes_on() -> None:
    session = FakeSession("one two three four")
    async with in_mid_answer(session, 2) as pilot:
        await submit(pilot, "/restart")
        await until(pilot, lambda: idle(pilot.app))
        shown = screen(pilot.app)
        assert "engine crashed: signal 9" in shown and "/continue or /retry starts it again" in shown
        assert "interrupted: /continue goes on" in shown
        session.gate = None
        await submit(pilot, "/continue")
        await until(pilot, lambda: answers(pilot.app) == ["one two three four"] and idle(pilot.app))


async def test_a_refused_question_goes_back_into_the_prompt() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        session.error = AppError("prompt too long", "it has 9000 tokens", 5)
        await submit(pilot, "a long one")
        await until(pilot, lambda: "prompt too long" in screen(pilot.app) and idle(pilot.app))
        assert "/summarize" in screen(pilot.app)
        assert pilot.app.query_one(PromptInput).text == "a long one" and session.store.chats() == []


async def test_a_full_context_is_announced_and_room_is_made() -> None:
    session = FakeSession("an answer of some words")
    session.stats = make_stats(prompt_tokens=3600)
    async with chat(session).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        for number in range(3):
            await submit(pilot, f"question {number}")
            await until(pilot, lambda n=number: len(session.asked) == n + 1 and idle(pilot.app))
        assert "context 3603/4096" in screen(pilot.app) and "the context window is 88% full" in screen(pilot.app)
        await submit(pilot, "/drop")
        await pilot.pause(0.1)
        assert "does not see what stands above any more" in screen(pilot.app) and len(session.messages) == 2
        await submit(pilot, "/drop")
        await pilot.pause(0.1)
        assert "no room to make" in screen(pilot.app)


async def test_a_long_question_that_is_refused_leaves_the_chat_in_view() -> None:
    """Of thousands of lines a few screens are left: the view goes back to them."""
    session = FakeSession("\n\n".join(f"line {number}" for number in range(40)))
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: len(session.asked) == 1 and idle(pilot.app))
        session.error = AppError("prompt too long", "it has 9000 tokens", 5)
        pilot.app.post_message(Paste("a word\n" * 4000))  # a mark in the prompt, whose height stays what it was
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: len(session.asked) == 2 and idle(pilot.app))
        await until(pilot, lambda: "line 39" in screen(pilot.app) and "prompt too long" in screen(pilot.app))
        assert pilot.app.conversation.scroll_offset.y == pilot.app.conversation.max_scroll_y > 0
