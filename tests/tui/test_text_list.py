"""Personas and saved prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession, notices, ready, screen, submit, until
from picture import check
from textual.pilot import Pilot

from specee.app import config_file
from specee.app.options import ChatOptions, LoadOptions
from specee.app.tui.app import ChatApp
from specee.app.tui.text_list import TextList

OURS = "# mine\n[personas]\ntutor = 'Explain.\\nSlowly.'  # patient\n"


def app_in(tmp_path: Path) -> ChatApp:
    return ChatApp(FakeSession(load=LoadOptions(data_dir=str(tmp_path))), ChatOptions(), {"tutor": "Explain."})


async def open_list(pilot: Pilot[Any]) -> None:
    await pilot.press("f8")
    await until(pilot, lambda: isinstance(pilot.app.screen, TextList) and "Saved prompts" in screen(pilot.app))


def kept(tmp_path: Path) -> dict[str, Any]:
    return config_file.read(tmp_path / "config.toml")


async def test_a_persona_is_made_used_renamed_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(OURS.replace("\\n", " "))
    async with app_in(tmp_path).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        session = pilot.app.session
        await open_list(pilot)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: "this chat has no system message" in screen(pilot.app))
        await pilot.press("escape")
        await submit(pilot, "/system Be brief.\nVery.")
        await open_list(pilot)
        await pilot.press("ctrl+n", *"tutor", "enter")
        await until(pilot, lambda: "there is one that is called tutor" in screen(pilot.app))
        await pilot.press("escape")
        await until(pilot, lambda: "nothing is changed" in screen(pilot.app))
        await pilot.press("ctrl+n", *"brief", "enter")
        await until(pilot, lambda: "brief is kept" in screen(pilot.app))
        assert kept(tmp_path)["personas"] == {"tutor": "Explain. Slowly.", "brief": "Be brief.\nVery."}
        await pilot.press("down", "enter")
        await until(pilot, lambda: session.system == "Explain. Slowly.")
        await until(pilot, lambda: any("system message: Explain. Slowly." in text for text in notices(pilot.app)))
        await open_list(pilot)
        await pilot.press("ctrl+r", *"short", "enter")
        await until(pilot, lambda: "brief is called short now" in screen(pilot.app))
        await pilot.press("delete")
        await until(pilot, lambda: "Delete the persona short?" in screen(pilot.app))
        await pilot.press("escape", "delete")
        await until(pilot, lambda: "Delete the persona short?" in screen(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: "short is deleted" in screen(pilot.app))
    assert kept(tmp_path) == {"personas": {"tutor": "Explain. Slowly."}}
    assert (
        "# mine\n" in (tmp_path / "config.toml").read_text() and "# patient" in (tmp_path / "config.toml").read_text()
    )


async def test_a_prompt_is_saved_found_and_used(tmp_path: Path) -> None:
    async with app_in(tmp_path).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        prompt = pilot.app.prompt
        await open_list(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "the prompt is empty" in screen(pilot.app))
        await pilot.press("escape")
        prompt.write("Translate this:\n/usr")
        await open_list(pilot)
        await pilot.press("ctrl+s", *"to english", "enter")
        await until(pilot, lambda: "to english is kept" in screen(pilot.app))
        await pilot.press("escape")
        prompt.clear()
        await open_list(pilot)
        await pilot.press(*"transl")
        await until(pilot, lambda: "none is called that" in screen(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: prompt.text == "Translate this:\n/usr")
        assert kept(tmp_path) == {"prompts": {"to english": "Translate this:\n/usr"}}
        await submit(pilot, "/prompt to english")
        await until(pilot, lambda: prompt.text == "Translate this:\n/usr")
        await submit(pilot, "/prompt other")
        await until(pilot, lambda: any("choose from to english" in text for text in notices(pilot.app)))


async def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[prompts\n")
    async with app_in(tmp_path).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        pilot.app.prompt.write("Hi")
        await open_list(pilot)
        await until(pilot, lambda: "TOML: Expected" in " ".join(screen(pilot.app).split()))
        await pilot.press("ctrl+s", *"hi", "enter")
        await pilot.pause(0.1)
        assert "TOML: Expected" in " ".join(screen(pilot.app).split())
        assert not pilot.app.texts.by_name[config_file.PROMPTS]


@pytest.mark.parametrize("width", [60, 120])
async def test_the_list_as_it_looks(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "config.toml").write_text("[prompts]\nshort = 'Say it in one sentence.'\nwide = '日本語で答えて'\n")
    async with app_in(tmp_path).run_test(size=(width, 18)) as pilot:
        await ready(pilot)
        await open_list(pilot)
        await pilot.press("down")
        await pilot.pause(0.1)
        check(f"texts-{width}-dark", pilot.app)
