"""Slash commands."""

from __future__ import annotations

from typing import Any

from fake_session import FakeSession, answers, chat, idle, notices, ready, screen, submit, until

from specee.app.options import ChatOptions
from specee.app.tui.app import ChatApp
from specee.app.tui.prompt_input import PromptInput


async def test_commands() -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await submit(pilot, "/policy specee:margin@0.3")
        await submit(pilot, "/policy nonsense")
        await submit(pilot, "/what")
        await pilot.pause(0.1)
        shown = "\n".join(notices(pilot.app))
        assert (
            "policy specee:margin@0.3" in shown and "unknown policy" in shown and "there is no command /what" in shown
        )
        await submit(pilot, "Hi")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert session.sent[1][1].policy.label == "specee:margin@0.3"
        await submit(pilot, "/new")
        await until(pilot, lambda: session.chat is None)
        await pilot.pause(0.1)
        assert answers(pilot.app) == []
        await submit(pilot, "/quit")
        await pilot.pause(0.1)
    assert pilot.app.return_code == 0 and session.closes


async def test_commands_are_completed_and_listed() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        await pilot.press("/", "s", "u")
        await pilot.pause(0.05)
        assert "replace the oldest turns by a summary" in screen(pilot.app)
        await pilot.press("tab")
        assert pilot.app.query_one(PromptInput).text == "/summarize "
        await submit(pilot, "/help")
        await pilot.pause(0.1)
        assert "/export" in "\n".join(notices(pilot.app))


async def test_export(tmp_path: Any) -> None:
    session = FakeSession("Look: `this`")
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        for name in ("chat.md", "chat.json"):
            await submit(pilot, f"/export {tmp_path / name}")
            await until(pilot, lambda name=name: (tmp_path / name).exists())
        assert "`this`" in (tmp_path / "chat.md").read_text() and '"branch"' in (tmp_path / "chat.json").read_text()
        await submit(pilot, f"/export {tmp_path / 'no' / 'such'}")
        await until(pilot, lambda: "! cannot write" in screen(pilot.app))
        await submit(pilot, f"/export {tmp_path / 'chat.md'}")
        await until(pilot, lambda: "already there" in screen(pilot.app))


async def test_settings_of_a_chat() -> None:
    session = FakeSession()
    async with ChatApp(session, ChatOptions(), {"tutor": "Explain."}).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, "/threshold 0.4")
        await until(pilot, lambda: "auto has no threshold" in screen(pilot.app))
        for line in ("/set temperature 0.1", "/set seed 3", "/persona tutor", "/policy exact", "/threshold 0.4"):
            await submit(pilot, line)
        await submit(pilot, "/set temperature hot")
        await pilot.pause(0.1)
        assert "bad value" in screen(pilot.app)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        asked = session.asked[0]
        assert asked.messages[0].content == "Explain."
        assert (asked.options.sampling.temperature, asked.options.sampling.seed) == (0.1, 3)
        assert asked.options.policy.threshold == 0.4 and session.chat is not None
        assert session.chat.options["temperature"] == 0.1
        await submit(pilot, "/theme textual-light")
        await pilot.pause(0.1)
        assert pilot.app.theme == "textual-light"


async def test_the_palette_has_its_own_keys() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 2)
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1)
