"""Messages and code into the clipboard: by command, with the mouse, and while the answer grows."""

from __future__ import annotations

import pytest
from fake_session import FakeSession, chat, idle, in_mid_answer, notices, ready, screen, submit, until
from textual.pilot import Pilot

from specee.app import clipboard
from specee.app.chat.copy_target import text_to_copy
from specee.app.errors import AppError
from specee.app.tui.conversation import Conversation

CODE = "Look:\n```python\nprint(1)\nprint(2)\n```\nand\n```\nsecond\n```"


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("", CODE),
        ("1", CODE),
        ("2", "a question"),
        ("4", "first"),
        ("code", "second"),
        ("code 1", "print(1)\nprint(2)"),
        ("1 code 2", "second"),
        ("3 code", "x"),
    ],
)
def test_which_text_is_copied(argument: str, text: str) -> None:
    assert text_to_copy(argument, ["first", "~~~\nx\n~~~", "a question", CODE], CODE) == text


@pytest.mark.parametrize("argument", ["0", "5", "code 3", "code 0", "2 code", "what", "1 what", "code 1 2", "code x"])
def test_a_text_that_does_not_exist_is_an_error(argument: str) -> None:
    with pytest.raises(AppError):
        text_to_copy(argument, ["first", "~~~\nx\n~~~", "a question", CODE], CODE)


async def answered(pilot: Pilot[int], session: FakeSession) -> Conversation:
    await ready(pilot)
    await submit(pilot, "Hi")
    await until(pilot, lambda: session.sent and idle(pilot.app))
    await pilot.pause()
    conversation: Conversation = pilot.app.conversation
    return conversation


async def test_commands_and_keys_copy() -> None:
    session = FakeSession(CODE)
    async with chat(session).run_test() as pilot:
        await answered(pilot, session)
        await pilot.press("ctrl+y")
        assert pilot.app.clipboard == CODE
        for line, text in (("/copy code 1", "print(1)\nprint(2)"), ("/copy 2", "Hi"), ("/copy code", "second")):
            await submit(pilot, line)
            await until(pilot, lambda text=text: pilot.app.clipboard == text)
        await submit(pilot, "/copy 9")
        await until(pilot, lambda: "no such message" in screen(pilot.app))


async def test_an_answer_that_grows_is_copied_as_far_as_it_is() -> None:
    session = FakeSession("```\none\n``` two three")
    async with in_mid_answer(session, 2) as pilot:
        await submit(pilot, "/copy 1")
        await until(pilot, lambda: pilot.app.clipboard == "```\none\n``` two")
        await submit(pilot, "/copy 2")
        await until(pilot, lambda: pilot.app.clipboard == "Hi")
        await submit(pilot, "/copy code")
        await until(pilot, lambda: pilot.app.clipboard == "one\n``` two")  # the fence is open still
        session.gate = None
        await until(pilot, lambda: idle(pilot.app))


async def test_the_mouse_selects_and_ctrl_c_copies_without_quitting() -> None:
    session = FakeSession("a **bold** word " + "and more words " * 8 + "to wrap")
    async with chat(session).run_test(size=(60, 24)) as pilot:
        conversation = await answered(pilot, session)
        top = conversation.entries.index(conversation.entries[-1])
        y = conversation._tops[top] - conversation.scroll_offset.y
        await pilot.mouse_down(conversation, offset=(3, y))
        await pilot.hover(conversation, offset=(9, y + 1))
        await pilot.mouse_up(conversation, offset=(9, y + 1))
        await pilot.pause()
        selected = pilot.app.screen.get_selected_text()
        style = next(
            segment.style
            for strip in pilot.app.screen._compositor.render_strips()
            for segment in strip
            if "bold word" in segment.text or segment.text == "bold"
        )
        assert style.color != style.bgcolor, "what is selected can be read"
        assert selected is not None and selected.startswith("bold word and more words") and "\n" not in selected
        await pilot.press("ctrl+c")
        assert pilot.app.clipboard == selected and pilot.app.is_running and not pilot.app.screen.selections
        await pilot.press("ctrl+c")
        await pilot.pause(0.05)
    assert pilot.app.return_code == 0


async def test_a_double_click_selects_the_code_or_the_message() -> None:
    session = FakeSession(CODE)
    async with chat(session).run_test(size=(80, 30)) as pilot:
        conversation = await answered(pilot, session)
        y = conversation._tops[len(conversation.entries) - 1]
        await pilot.click(conversation, offset=(5, y + 3), times=2)
        await pilot.press("ctrl+c")
        assert pilot.app.clipboard == "print(1)\nprint(2)"
        await pilot.click(conversation, offset=(2, y), times=2)
        await pilot.press("ctrl+c")
        assert pilot.app.clipboard == "Look:\n\nprint(1)\nprint(2)\n\nand\n\nsecond"
        assert not any("still" in notice for notice in notices(pilot.app))


def test_the_clipboard_of_the_machine_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_CONNECTION", "WAYLAND_DISPLAY", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert clipboard.command() is None
    monkeypatch.setenv("DISPLAY", ":0")
    assert clipboard.command() == ["xclip", "-selection", "clipboard"]
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    assert clipboard.command() is None
