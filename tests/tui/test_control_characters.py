"""Text that is not ours never steers the terminal: whatever widget draws it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_session import INFO, FakeSession, chat, idle, ready, screen, submit, until

from specee.app.chat.history.store import Store
from specee.app.errors import AppError
from specee.app.tui.app import ChatApp
from specee.app.tui.views import VIEWS

HOSTILE = "first\x1b]0;X\x07\x1b[2J\x9b2J\x08\x7f\u202eline"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def check(app: Any) -> str:
    shown = screen(app)
    assert not FORBIDDEN.search(shown), repr(shown)
    for strip in app.screen._compositor.render_strips():
        assert strip.cell_length == app.size.width
    return shown


@pytest.mark.parametrize("plain", [False, True])
async def test_answers_in_all_views(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    code = f"```py\n{HOSTILE}\n```\n\n| {HOSTILE} | b |\n|---|---|\n| c | [{HOSTILE}]({HOSTILE}) |\n\n- {HOSTILE}\n"
    session = FakeSession(f"**{HOSTILE}** `{HOSTILE}`\n\n{code}")
    async with chat(session).run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await submit(pilot, HOSTILE)
        await until(pilot, lambda: session.sent and idle(pilot.app))
        for view in VIEWS:
            await pilot.app.set_view(view)
            await pilot.pause(0.05)
            assert "␛" in check(pilot.app)
        await submit(pilot, "/race")
        await until(pilot, lambda: len(session.asked) == 3 and idle(pilot.app))
        check(pilot.app)


async def test_kept_chats_models_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    made = store.new_chat(HOSTILE, HOSTILE, {})
    recorder = store.add_answer(made.id, store.add_question(made.id, None, HOSTILE))
    recorder.finish("complete")
    store.cut_before(recorder.turn.id, HOSTILE)
    monkeypatch.setattr("fake_session.INFO", replace(INFO, name=HOSTILE, dense_only=HOSTILE))
    session = FakeSession(store=store)
    async with chat(session).run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        assert "first" in check(pilot.app)
        await submit(pilot, "/resume 1")
        await submit(pilot, f"/{HOSTILE}")
        await submit(pilot, f"/theme {HOSTILE}")
        await submit(pilot, f"/system {HOSTILE}")
        await pilot.pause(0.1)
        check(pilot.app)
        await submit(pilot, "/search line")
        await pilot.pause(0.1)
        check(pilot.app)
        pilot.app.notify(f"[/bold] {HOSTILE} [red")
        await until(pilot, lambda: "[/bold]" in check(pilot.app))
        session.error = AppError(HOSTILE, HOSTILE, 5)
        pilot.app.prompt.focus()
        await submit(pilot, "Hi")
        await until(pilot, lambda: idle(pilot.app))
        pilot.app.prompt.write(HOSTILE)
        await pilot.pause(0.1)
        check(pilot.app)


async def test_what_is_copied_and_exported_steers_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    session = FakeSession(HOSTILE)
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        monkeypatch.setattr(ChatApp, "copy_to_clipboard", lambda self, text: copied.append(text))
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await submit(pilot, "/copy")
        await until(pilot, lambda: copied)
        for name in ("a.md", "a.json"):
            await submit(pilot, f"/export {tmp_path / name}")
            await until(pilot, lambda name=name: (tmp_path / name).exists())
            assert not FORBIDDEN.search((tmp_path / name).read_text("utf-8"))
    assert "first" in copied[0] and not FORBIDDEN.search(copied[0])
