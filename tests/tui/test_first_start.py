"""Models that are suggested at the first start."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession, idle, notices, ready, screen, submit, survey_ended, until
from textual.pilot import Pilot

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_gguf

from specee.app.options import ChatOptions, LoadOptions
from specee.app.recommend.machine import DecodingSpeed, Machine
from specee.app.tui.app import ChatApp
from specee.models import file_hash, registry

TITLE = "Models that suit this PC"


def machine(folders: Any) -> Machine:
    rates = {"Q4_K": 20e9, "Q6_K": 20e9, "Q8_0": 25e9, "Q4_1": 25e9, "F16": 25e9, "F32": 25e9}
    return Machine(8, 4, 16 * 10**9, speed=DecodingSpeed(rates, {2: 1.1, 4: 1.3}))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    folder = tmp_path / "hf" / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("specee.app.recommend.this_machine.look", machine)
    return folder


def session_in(tmp_path: Path, **options: Any) -> FakeSession:
    return FakeSession(load=LoadOptions(data_dir=str(tmp_path / "data"), **options))


def first_start(session: FakeSession) -> ChatApp:
    return ChatApp(session, ChatOptions(), first_start=True)


async def shown(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: TITLE in screen(pilot.app))


def seen(tmp_path: Path) -> bool:
    return (tmp_path / "data" / "first-start").exists()


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (200, 60)])
async def test_suggestions_stand_above_the_prompt_and_go_at_the_first_key(
    size: tuple[int, int], tmp_path: Path
) -> None:
    session = session_in(tmp_path)
    async with first_start(session).run_test(size=size) as pilot:
        await shown(pilot)
        for part in ("F5", "F6", "tokens/s", "GB", "chat", "other keys", "Ask something"):
            await until(pilot, lambda part=part: part in screen(pilot.app))
        assert pilot.app.prompt.has_focus and len(pilot.app.screen_stack) == 1 and not seen(tmp_path)
        await pilot.press("H", "i")
        await until(pilot, lambda: TITLE not in screen(pilot.app) and seen(tmp_path))
        assert pilot.app.prompt.text == "Hi"
        await pilot.press("enter")
        await until(pilot, lambda: session.sent and idle(pilot.app))
    again = session_in(tmp_path)
    async with first_start(again).run_test(size=size) as pilot:
        await ready(pilot)
        await pilot.pause(0.5)
        assert TITLE not in screen(pilot.app) and "F5" not in screen(pilot.app)


async def test_they_leave_room_for_the_prompt(tmp_path: Path) -> None:
    async with first_start(session_in(tmp_path)).run_test(size=(80, 24)) as pilot:
        await shown(pilot)
        for columns, rows in ((60, 18), (40, 14), (30, 12), (30, 10), (24, 8), (20, 6), (40, 13), (100, 30)):
            await pilot.resize_terminal(columns, rows)
            await until(pilot, lambda: "Ask something" in screen(pilot.app))
            await pilot.pause(0.1)
            assert "Ask something" in screen(pilot.app), (columns, rows)
            assert ("F7" in screen(pilot.app)) == (rows > 12), (columns, rows)
        await until(pilot, lambda: TITLE in screen(pilot.app))


@pytest.mark.parametrize("how", ["key", "mouse"])
async def test_one_key_fetches_a_model_with_its_drafter(
    how: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    go_on = threading.Event()

    def pull(name: str, on_progress: Any, *, offline: bool) -> Path:
        fetched.append(name)
        go_on.wait()
        entry = registry.entries()[name]
        path = cache / f"models--{entry.repo.replace('/', '--')}" / "snapshots" / ("c" * 40) / entry.file
        path.parent.mkdir(parents=True)
        return tiny_gguf.write(path, "llama")

    monkeypatch.setattr("specee.models.download.pull", pull)
    session = session_in(tmp_path)
    async with first_start(session).run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: re.search("F5 .* GB", screen(pilot.app)) and "other keys" in screen(pilot.app))
        name = pilot.app._first_start.suggestions[0].name
        if how == "key":
            await pilot.press("f5")
        else:
            await survey_ended(pilot)
            lines = screen(pilot.app).splitlines()
            line = next(i for i, text in enumerate(lines) if "F5" in text and "GB" in text)
            await pilot.click(offset=(lines[line].index("F5") + 1, line))
        await until(pilot, lambda: fetched == [name])
        assert TITLE not in screen(pilot.app)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        go_on.set()
        await until(pilot, lambda: session.loads[-1].model == name and idle(pilot.app))
        assert any("answers from here on" in text for text in notices(pilot.app))


@pytest.mark.parametrize(
    "why", ["another model", "offline", "a chat that goes on", "a fetched model", "not the screen"]
)
async def test_it_is_for_a_first_start_only(why: str, tmp_path: Path, cache: Path) -> None:
    session = session_in(tmp_path, offline=why == "offline", model="llama3.2-1b" if why == "another model" else None)
    if why == "a chat that goes on":
        chat = session.store.new_chat("Old", None, {})
        session.store.add_question(chat.id, None, "Old")
        session.resume(chat.id)
    if why == "a fetched model":
        file_hash.sha256(tiny_gguf.write(tmp_path / "mine.gguf", "llama"), tmp_path / "data" / "cache")
    app = ChatApp(session, ChatOptions()) if why == "not the screen" else first_start(session)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.pause(0.7)
        assert TITLE not in screen(pilot.app)
        await pilot.press("f5")
        assert pilot.app.controller.pull is None and pilot.app.prompt.text == ""
    assert seen(tmp_path) == (why == "a fetched model")


async def test_who_types_before_it_is_there_is_not_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def look(folders: Any) -> Machine:
        go_on.wait()
        return machine(folders)

    monkeypatch.setattr("specee.app.recommend.this_machine.look", look)
    async with first_start(session_in(tmp_path)).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("H")
        go_on.set()
        await pilot.pause(0.7)
        assert TITLE not in screen(pilot.app) and not seen(tmp_path)


async def test_a_data_folder_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    session = session_in(tmp_path)
    async with first_start(session).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.pause(0.5)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
