"""What a model thinks, on the screen."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fake_session import FakeSession, answers, chat, idle, make_stats, notices, ready, screen, submit, until

from specee.app.chat.history.store import Store
from specee.app.engine.protocol import ChatEvent
from specee.app.options import ChatOptions
from specee.app.tui.thought_entry import ThoughtEntry

THINKING = "think: Let me\n\nsee \x1b[31mhere.\n say: The **answer** is 2."


def thoughts(app: Any) -> list[ThoughtEntry]:
    return [entry for entry in app.conversation.entries if isinstance(entry, ThoughtEntry)]


async def test_a_thought_is_folded_above_the_answer() -> None:
    session = FakeSession(THINKING)
    session.gate = threading.Semaphore(3)
    app = chat(session)
    async with app.run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: thoughts(app) and "here" in thoughts(app)[0].text)
        shown = screen(app)
        assert "▾ Thinking… " in shown and "  Let me" in shown and "see ␛[31mhere" in shown
        assert app.event_display.activity == "thinking" and "thinking" in shown
        assert app.event_display.text == ""  # which /copy takes
        session.gate.release(100)
        await until(pilot, lambda: idle(app))
        (thought,) = thoughts(app)
        assert not thought.is_open and answers(app) == ["The **answer** is 2."]
        shown = screen(app)
        assert "▸ Thought" in shown and "Thinking" not in shown
        assert "Let me" not in shown and shown.index("▸ Thought") < shown.index("The answer is 2.")
        turn = session.branch[-1]
        assert turn.content == "The **answer** is 2." and turn.thought == "Let me\n\nsee \x1b[31mhere.\n"
        await pilot.press("ctrl+t")
        assert "Let me" in screen(app) and "\x1b" not in screen(app)
        await pilot.press("ctrl+t")
        assert "Let me" not in screen(app)


async def test_a_click_opens_one() -> None:
    session = FakeSession(THINKING)
    app = chat(session)
    async with app.run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: idle(app) and thoughts(app))
        y = app.conversation._tops[app.conversation.entries.index(thoughts(app)[0])] - app.conversation.scroll_offset.y
        await pilot.click(app.conversation, offset=(5, y))
        assert thoughts(app)[0].is_open and "Let me" in screen(app)
        await pilot.click(app.conversation, offset=(5, y + 1))
        assert thoughts(app)[0].is_open


async def test_a_kept_chat_shows_it_folded_and_export_leaves_it_out(tmp_path: Any) -> None:
    store = Store()
    made = store.new_chat("Hi", None, {})
    recorder = store.add_answer(made.id, store.add_question(made.id, None, "Hi"))
    recorder.add(ChatEvent(0, "I wonder", 1, 30, "verified", 1.0, channel="thought"))
    recorder.add(ChatEvent(1, " much", 1, 24, "verified", 13.0, channel="thought"))
    recorder.add(ChatEvent(2, "Yes.", 1, 30, "verified", 14.0))
    recorder.finish("complete", make_stats(tokens=3))
    session = FakeSession(store=store)
    session.resume(made.id)
    app = chat(session)
    async with app.run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        assert "▸ Thought for 12 s" in screen(app) and "I wonder" not in screen(app)
        assert [column.text for column in app.panel.gauge.answer] == ["I wonder", " much", "Yes."]
        await submit(pilot, f"/export {tmp_path}/a.md")
        await submit(pilot, f"/export {tmp_path}/b.md --with-thoughts")
        await until(pilot, lambda: (tmp_path / "b.md").exists())
        assert "wonder" not in (tmp_path / "a.md").read_text()
        assert "> I wonder much" in (tmp_path / "b.md").read_text()
        await pilot.press("ctrl+t")
        assert "I wonder much" in screen(app)


async def test_an_answer_that_goes_on_within_its_thought() -> None:
    session = FakeSession(THINKING)
    session.gate = threading.Semaphore(2)
    app = chat(session)
    async with app.run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: thoughts(app) and "Let" in thoughts(app)[0].text)
        await pilot.press("escape")
        await until(pilot, lambda: idle(app))
        assert session.branch[-1].state == "stopped" and session.branch[-1].content == ""
        session.gate = None
        await submit(pilot, "/continue")
        await until(pilot, lambda: idle(app) and answers(app)[-1:] == ["The **answer** is 2."])
        assert session.asked[-1].continue_answer and session.asked[-1].messages[-1].thought
        assert len(thoughts(app)) == 1 and thoughts(app)[0].text == "Let me\n\nsee ␛[31mhere."


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"stop_reason": "length", "thought_cut": True, "thought_tokens": 40}, "the thought was cut after 40 tokens"),
        ({"thought_closed": True, "thought_tokens": 50}, "the thought was ended after 50 tokens"),
    ],
)
async def test_a_limit_is_told(changes: Any, line: str) -> None:
    session = FakeSession(THINKING)
    session.stats = make_stats(**changes)
    app = chat(session)
    async with app.run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: any(line in notice for notice in notices(app)))


async def test_what_a_model_cannot_be_told_is_said_once() -> None:
    session = FakeSession("Yes")
    app = chat(session)
    async with app.run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "/set think on")
        assert app.options == ChatOptions(think="on")
        for _ in range(2):
            await submit(pilot, "Hi")
            await until(pilot, lambda: idle(app))
        assert sum("does not think" in notice for notice in notices(app)) == 1
        await submit(pilot, "/set think_tokens 50")
        assert app.options == ChatOptions(think="on", think_tokens=50)
        await submit(pilot, "/set think default")
        await submit(pilot, "/set think_tokens default")
        assert app.options == ChatOptions()
        await submit(pilot, "/set think perhaps")
        await until(pilot, lambda: "'auto'" in notices(app)[-1])
        await submit(pilot, "/set")
        await until(pilot, lambda: "think auto, think_tokens default" in notices(app)[-1])


def test_a_long_thought_is_laid_out_as_it_would_be_in_one_piece() -> None:
    text = "".join(f"word{i} " + ("\n" if i % 17 == 0 else "") + ("\n\n" if i % 41 == 0 else "") for i in range(300))
    grown = ThoughtEntry(grows=True)
    grown.lay_out(40, plain=False)
    for i in range(0, len(text), 7):
        grown.append(text[i : i + 7], i / 100)
    whole = ThoughtEntry(text, is_open=True)
    whole.lay_out(40, plain=False)
    assert [line.plain.rstrip() for line in grown.lines[1:]] == [line.plain.rstrip() for line in whole.lines[1:]]
    grown.finish()
    assert len(grown.lines) == 1
