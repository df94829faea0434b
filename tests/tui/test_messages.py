"""What can be done with one message: with keys, and with the mouse."""
# ruff: noqa: RUF001 - the signs are meant

from __future__ import annotations

import re
from typing import Any

from fake_session import FakeSession, answers, chat, idle, in_mid_answer, make_stats, ready, screen, submit, until
from textual.pilot import Pilot

from specee.app.tui.message_header import MessageHeader
from specee.app.tui.prompt_input import PromptInput
from specee.app.tui.question import Question

LONG_CODE = "```python\n" + "\n".join(f"line_{n} = {n}" for n in range(40)) + "\n```"


async def ask(pilot: Pilot[Any], *questions: str) -> None:
    session = pilot.app.session
    await ready(pilot)
    for question in questions:
        count = len(session.asked)
        await submit(pilot, question)
        await until(pilot, lambda count=count: len(session.asked) == count + 1 and idle(pilot.app))
    await pilot.pause(0.1)


def headers(app: Any) -> list[str]:
    return [entry.lines[0].plain for entry in app.conversation.entries if isinstance(entry, MessageHeader)]


def questions(app: Any) -> list[str]:
    return [turn.content for turn in app.session.branch if turn.role == "user"]


async def click_on(pilot: Pilot[Any], index: int, word: str) -> None:
    """Points at the header of a message, and clicks a word of it."""
    conversation = pilot.app.conversation
    header = conversation.headers[index]
    y = conversation._tops[conversation.entries.index(header)] - conversation.scroll_offset.y
    await pilot.hover(conversation, offset=(3, y))
    await pilot.pause(0.05)
    await pilot.click(conversation, offset=(header.lines[0].plain.index(word) + 1, y))
    await pilot.pause(0.05)


async def test_a_header_says_who_when_how_fast_and_which_branch() -> None:
    session = FakeSession("one two")
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await ask(pilot, "Hi")
        question, answer = headers(pilot.app)
        assert re.fullmatch(r"You · \d\d:\d\d", question)
        assert re.fullmatch(r"Answer · \d\d:\d\d · 81\.5 tokens/s", answer)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(session.asked) == 2 and idle(pilot.app))
        await until(pilot, lambda: headers(pilot.app)[1].endswith("‹ branch 2 of 2 ›"))
        await click_on(pilot, 1, "‹")
        await until(pilot, lambda: "‹ 1 of 2 ›" in headers(pilot.app)[1])
        await pilot.press("right")  # the message is chosen now
        await until(pilot, lambda: "‹ 2 of 2 ›" in headers(pilot.app)[1])


async def test_keys_go_to_a_message_and_do_something_with_it() -> None:
    session = FakeSession("one two")
    async with chat(session).run_test(size=(100, 40)) as pilot:
        await ask(pilot, "First", "Second", "Third")
        app, prompt = pilot.app, pilot.app.query_one(PromptInput)
        await pilot.press("alt+up", "alt+up", "c")
        await until(pilot, lambda: app.clipboard == "Third")
        await pilot.press("up", "c")
        await until(pilot, lambda: app.clipboard == "one two")
        assert "copy" in headers(app)[3] and "copy" not in headers(app)[2]
        await pilot.press("up", "e")
        await until(pilot, lambda: prompt.text == "Second" and prompt.has_focus)
        await pilot.press("!", "enter")
        await until(pilot, lambda: len(session.asked) == 4 and idle(app))
        assert questions(app) == ["First", "Second!"] and "branch 2 of 2" in headers(app)[2]
        await pilot.press("alt+up", "down")
        await until(pilot, lambda: prompt.has_focus)  # behind the last message
        await pilot.press("alt+up", "x")
        assert prompt.text == "x" and prompt.has_focus, "what is no key is typed"


async def test_an_answer_that_grows_is_copied_as_far_as_it_is_and_nothing_else_done_with_it() -> None:
    session = FakeSession("one two three four")
    async with in_mid_answer(session, 2) as pilot:
        await pilot.press("alt+up", "c")
        await until(pilot, lambda: pilot.app.clipboard == "one two")
        await pilot.press("d")
        await until(pilot, lambda: "Esc stops it" in screen(pilot.app))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: idle(pilot.app))
        assert [turn.state for turn in session.branch] == ["complete", "stopped"]


async def test_an_older_question_is_answered_again_and_an_old_answer_followed_by_another_question() -> None:
    session = FakeSession("one two")
    async with chat(session).run_test(size=(100, 40)) as pilot:
        await ask(pilot, "First", "Second")
        app, prompt = pilot.app, pilot.app.query_one(PromptInput)
        await pilot.press("alt+up", "up", "up", "b")
        await until(pilot, lambda: "begins a branch here" in screen(app))
        assert len(headers(app)) == 2 and prompt.has_focus
        await pilot.press("escape")
        await until(pilot, lambda: len(headers(app)) == 4)
        await pilot.press("alt+up", "up", "up", "b")
        await submit(pilot, "Other")
        await until(pilot, lambda: len(session.asked) == 3 and idle(app))
        assert questions(app) == ["First", "Other"] and "branch 2 of 2" in headers(app)[2]
        session.answer = "new"
        await pilot.press("alt+up", "up", "up", "up", "r")
        await until(pilot, lambda: len(session.asked) == 4 and idle(app))
        assert questions(app) == ["First"] and answers(app) == ["new"]
        assert len(session.asked[-1].messages) == 1, "what followed is not sent"


async def test_a_message_is_deleted_with_what_follows_once_the_user_agrees() -> None:
    session = FakeSession("one two")
    async with chat(session).run_test(size=(100, 40)) as pilot:
        await ask(pilot, "First", "Second")
        app = pilot.app
        await pilot.press("alt+up", "up", "d")
        await until(pilot, lambda: isinstance(app.screen, Question) and "and its answer" in screen(app))
        await pilot.press("n")
        await pilot.pause(0.05)
        assert questions(app) == ["First", "Second"]
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: questions(app) == ["First"] and len(headers(app)) == 2)
        session.answer = "again"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: answers(app) == ["again"] and idle(app))
        session.delete(session.branch[-1].id)
        assert [turn.content for turn in session.branch] == ["First", "one two"], "the other version takes its place"
        session.delete(session.branch[0].id)
        assert session.chat is None and session.store.chats() == []


async def test_the_mouse_finds_what_can_be_done_where_there_is_little_room() -> None:
    session = FakeSession("one two")
    session.stats = make_stats(stop_reason="length")
    async with chat(session).run_test(size=(60, 24)) as pilot:
        await ask(pilot, "Hi")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(session.asked) == 2 and idle(pilot.app))
        await click_on(pilot, 1, "copy")
        await until(pilot, lambda: pilot.app.clipboard == "one two")
        shown = headers(pilot.app)[1]
        assert all(word in shown for word in ("Answer", "2 of 2", "retry", "branch", "continue", "delete"))
        await click_on(pilot, 1, "continue")
        await until(pilot, lambda: len(session.asked) == 3 and session.asked[2].continue_answer and idle(pilot.app))


async def test_code_is_copied_and_folded() -> None:
    session = FakeSession(f"{LONG_CODE}\n\nand\n\n```\nshort\n```")
    async with chat(session).run_test(size=(80, 70)) as pilot:
        await ask(pilot, "Hi")
        app, conversation = pilot.app, pilot.app.conversation
        assert "▾ python, 40 lines  copy" in screen(app) and "code  copy" in screen(app)
        top = conversation._tops[-2]
        lines = [line.plain for line in conversation.entries[-1].lines]
        await pilot.click(conversation, offset=(lines.index(" code  copy") and 9, top + lines.index(" code  copy")))
        await until(pilot, lambda: app.clipboard == "short")
        await pilot.press("alt+up", "f")
        await until(pilot, lambda: "▸ python, 40 lines" in screen(app))
        assert "line_7 = 7" in screen(app) and "line_8 = 8" not in screen(app) and "short" in screen(app)
        await pilot.click(conversation, offset=(5, top))
        await until(pilot, lambda: "line_39 = 39" in screen(app))
        chat_id = session.chat.id
        await pilot.press("escape")
        await submit(pilot, "/new")
        await submit(pilot, f"/resume {chat_id}")
        await until(pilot, lambda: "▸ python, 40 lines" in screen(app))


async def test_a_token_is_chosen_in_the_answer_or_in_the_chart_and_seen_in_both() -> None:
    session = FakeSession("The **quick** brown fox, `lazy` dogs")
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ask(pilot, "Hi")
        app, conversation = pilot.app, pilot.app.conversation
        top = conversation._tops[-2]
        await pilot.click(conversation, offset=(14, top))  # in "brown"
        await until(pilot, lambda: "token 3 “ brown”" in screen(app))
        assert conversation._mark.lines == {0: (9, 15)}
        await pilot.press("ctrl+right")
        await until(pilot, lambda: "token 4 “ fox,”" in screen(app))
        assert conversation._mark.lines == {0: (15, 20)}
        await pilot.press("escape")
        await pilot.pause(0.05)
        assert not conversation._mark.lines and "token 4" not in screen(app)
