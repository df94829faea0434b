"""The form with the settings."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession, chat, idle, ready, screen, submit, until
from picture import check_soon
from textual.pilot import Pilot

from specee.app import config_file
from specee.app.chat import parameters, setting_list
from specee.app.cli import config
from specee.app.cli.program import program
from specee.app.cli.shared_options import SETTINGS
from specee.app.options import LoadOptions
from specee.app.tui.ascii_filter import AsciiFilter
from specee.app.tui.settings_screen import SettingsScreen

KNOWN = [option for option in program.params if option.name in SETTINGS]


def session_in(tmp_path: Path, **load: Any) -> FakeSession:
    return FakeSession(load=LoadOptions(data_dir=str(tmp_path), **load))


async def form(pilot: Pilot[Any]) -> SettingsScreen:
    await ready(pilot)
    await pilot.press("f4")
    await until(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen) and "temperature" in words(pilot))
    found = pilot.app.screen
    assert isinstance(found, SettingsScreen)
    return found


async def choose(pilot: Pilot[Any], name: str) -> None:
    """Goes to a setting; its value is ready to be replaced."""
    shown = pilot.app.screen
    shown._list.highlighted = [row and row.name for row in shown._rows].index(name)
    await until(pilot, lambda: shown._title.content == name)


def words(pilot: Pilot[Any]) -> str:
    """The screen without line ends."""
    return " ".join(screen(pilot.app).split())


async def write(pilot: Pilot[Any], text: str) -> None:
    await pilot.press(*({".": "full_stop", "-": "minus", "_": "underscore"}.get(key, key) for key in text))
    await pilot.pause(0.05)


def test_it_has_every_setting_of_the_command_and_of_the_file() -> None:
    found = setting_list.all_settings()
    names = [setting.name for setting in found]
    assert set(names) == SETTINGS | set(parameters.NAMES) and len(names) == len(set(names))
    assert all(setting.help and setting.default for setting in found)
    assert {setting.name for setting in found if not setting.in_config} == set(parameters.NAMES) - SETTINGS
    for setting in found:
        assert setting.read(setting.default) is None and setting.read("default") is None
        for choice in setting.choices:
            setting.read(choice)


async def test_what_is_typed_is_checked_at_once_and_used(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 40)) as pilot:
        await form(pilot)
        await write(pilot, "hot")
        assert "'hot' is not a number from 0 to 10" in words(pilot)
        await pilot.press("enter")
        await pilot.pause(0.05)
        assert pilot.app.options.sampling.temperature == 0.6 and "'hot' is not a number" in words(pilot)
        await pilot.press("ctrl+r")
        await write(pilot, "0.9")
        assert "temperature 0.9: Enter uses it" in words(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.options.sampling.temperature == 0.9)
        await choose(pilot, "policy")
        await pilot.press("tab")
        await pilot.press("enter", "down", "up")
        await choose(pilot, "draft_length")
        await write(pilot, "3")
        await until(pilot, lambda: "dense has no draft length" in words(pilot))
        await pilot.press("escape")
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        sent = session.sent[0][1]
        assert (sent.sampling.temperature, sent.policy.name) == (0.9, "dense")
        assert not (tmp_path / "config.toml").exists()


async def test_a_key_keeps_it_in_the_file_whose_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("# mine\ntop_k = 20 # few\n[personas]\ntutor = 'Explain.'\n")
    session = session_in(tmp_path)
    async with chat(session).run_test(size=(100, 40)) as pilot:
        await form(pilot)
        await write(pilot, "0.3")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "is kept in" in words(pilot))
        assert pilot.app.options.sampling.temperature == 0.3
        await choose(pilot, "top_k")
        assert "config.toml has it: 20" in words(pilot)
        await write(pilot, "30")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "top_k = 30 # few" in file.read_text())
        await choose(pilot, "seed")
        await write(pilot, "4")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "seed = 4" in file.read_text())
        await pilot.press("ctrl+r", "ctrl+s")
        await until(pilot, lambda: "leaves it at its default" in words(pilot))
        await choose(pilot, "repeat_last_n")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "config.toml has no place for it" in words(pilot))
        await choose(pilot, "plain")
        await write(pilot, "on")
        await pilot.press("enter")
        await pilot.pause(0.05)
        assert "is read when specee-chat starts" in words(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "plain = true" in file.read_text())
    found = config.read(file, KNOWN)
    assert found.defaults == {"top_k": 30, "temperature": 0.3, "plain": True} and found.personas == {
        "tutor": "Explain."
    }
    assert "# mine\n" in file.read_text()


async def test_what_no_start_could_use_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('policy = "exact:margin"\n')
    async with chat(session_in(tmp_path)).run_test(size=(100, 40)) as pilot:
        await form(pilot)
        pilot.app.options = setting_list.changed_options(pilot.app.options, _setting("policy"), "exact")
        for name, text in (("draft_length", "3"), ("persona", "nobody")):
            await choose(pilot, name)
            await write(pilot, text)
            await pilot.press("ctrl+s")
            why = "exclude each other" if name == "draft_length" else "unknown persona"
            await until(pilot, lambda why=why: why in words(pilot))
    assert file.read_text() == 'policy = "exact:margin"\n'


async def test_what_the_model_is_loaded_with(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    session.gate = threading.Semaphore(0)
    async with chat(session).run_test(size=(100, 40)) as pilot:
        await form(pilot)
        for name, text, field, value in (
            ("ctx", "512", "n_ctx", 512),
            ("threads", "1", "threads", 1),
            ("no_chats", "on", "chats", False),
            ("threads", "default", "threads", None),
        ):
            await choose(pilot, name)
            assert "The model is loaded again" in words(pilot)
            await write(pilot, text)
            await pilot.press("enter")
            await until(pilot, lambda field=field, value=value: getattr(session.loads[-1], field) == value)
            await until(pilot, lambda: idle(pilot.app))
        n_loads = len(session.loads)
        await pilot.press("enter")  # as it is already
        await pilot.press("escape")
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.asked)
        await form_while_busy(pilot)
        await choose(pilot, "ctx")
        await write(pilot, "600")
        await pilot.press("enter")
        await until(pilot, lambda: "an answer is under way" in words(pilot))
        assert len(session.loads) == n_loads
        session.gate = None
        await until(pilot, lambda: idle(pilot.app))


async def form_while_busy(pilot: Pilot[Any]) -> None:
    await pilot.press("f4")
    await until(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen))


async def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("top_k = ")
    async with chat(session_in(tmp_path)).run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await submit(pilot, "/settings")
        await until(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen))
        await write(pilot, "0.3")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "it is not TOML" in words(pilot))
    assert config_file.MAX_BYTES and (tmp_path / "config.toml").read_text() == "top_k = "


def _setting(name: str) -> setting_list.ChatSetting:
    return next(one for one in setting_list.all_settings() if one.name == name)


@pytest.mark.parametrize(
    ("width", "theme"), [(60, "dark"), (80, "light"), (80, "mono"), (80, "ascii"), (120, "dark"), (200, "dark")]
)
async def test_the_form_as_it_looks(width: int, theme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if theme == "mono":
        monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "config.toml").write_text("top_k = 20\n")
    session = session_in(tmp_path)
    async with chat(session, AsciiFilter() if theme == "ascii" else None).run_test(size=(width, 24)) as pilot:
        pilot.app.theme = "textual-light" if theme == "light" else "textual-dark"
        shown = await form(pilot)
        shown._list.styles.scrollbar_size_vertical = 0  # another option would change its scrollbar
        await write(pilot, "0.9")
        await pilot.press("enter")
        await check_soon(pilot, f"settings-{width}-{theme}")
