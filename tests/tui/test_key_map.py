"""The list of keys, and the palette: nothing is missing there."""

from __future__ import annotations

from typing import Any

from fake_session import FakeSession, chat, ready, screen, until
from textual.binding import Binding
from textual.pilot import Pilot

from specee.app.tui import keys
from specee.app.tui.commands import Commands
from specee.app.tui.conversation import Conversation
from specee.app.tui.key_line import key_names
from specee.app.tui.key_map import KeyMap, contexts
from specee.app.tui.model_picker import ModelPicker
from specee.app.tui.prompt_input import KEYS, PromptInput
from specee.app.tui.question import Question
from specee.app.tui.settings_screen import SettingsScreen
from specee.app.tui.text_list import TextList


async def open_palette(pilot: Pilot[Any], text: str) -> None:
    await pilot.press("ctrl+p")
    await until(pilot, lambda: len(pilot.app.screen_stack) > 1)
    await pilot.press(*text)


async def test_every_key_has_a_line() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        listed = {line for rows in contexts(pilot.app).values() for line in rows}
    bindings = [
        *keys.BINDINGS,
        *PromptInput.BINDINGS,
        *Conversation.BINDINGS,
        *(
            binding
            for screen in (ModelPicker, Question, SettingsScreen, TextList, KeyMap)
            for binding in screen.BINDINGS
        ),
    ]
    for binding in bindings:
        assert isinstance(binding, Binding) and binding.description, binding
        assert (key_names(binding.key), binding.description) in listed
    for key in KEYS:
        assert (key_names(key.keys), key.help) in listed


async def test_it_is_shown_and_scrolls() -> None:
    async with chat(FakeSession()).run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        await pilot.press("f1")
        await until(pilot, lambda: "Everywhere in the chat" in screen(pilot.app))
        assert "Ctrl+C" in screen(pilot.app)
        while "This list (F1)" not in screen(pilot.app):
            await pilot.press("pagedown")
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1)
        assert pilot.app.prompt.text == ""


async def test_the_palette_has_every_command() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        offered = {one.title.partition(" ")[0]: one for one in pilot.app.get_system_commands(pilot.app.screen)}
        assert {name for name in offered if name.startswith("/")} == set(Commands.help_lines())
        assert {"Theme", "Screenshot"} <= set(offered)
        for name, one in offered.items():
            key = one.title.partition(" (")[2].rstrip(")")
            assert not key or key in {
                key_names(b.key.split(",")[0]) for b in keys.BINDINGS if isinstance(b, Binding)
            }, name
        assert offered["/retry"].title == "/retry (Ctrl+R)" and offered["/settings"].title == "/settings (F4)"


async def test_a_command_of_the_palette_runs_or_waits_for_its_argument() -> None:
    async with chat(FakeSession()).run_test() as pilot:
        await ready(pilot)
        await open_palette(pilot, "keys")
        await until(pilot, lambda: "/keys (F1)" in screen(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, KeyMap))
        await pilot.press("escape")
        await open_palette(pilot, "threshold")
        await until(pilot, lambda: "/threshold" in screen(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.prompt.text == "/threshold ")
        await open_palette(pilot, "threshold")
        await until(pilot, lambda: "/threshold" in screen(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: "where a text stands" in " ".join(screen(pilot.app).split()))
        assert pilot.app.prompt.text == "/threshold "
