"""Terminals that cannot show Unicode."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession, answers, chat, idle, ready, screen, submit, until, use_drafts
from picture import check_sizes, check_soon
from rich.cells import cell_len
from textual.pilot import Pilot

from specee.app.options import LoadOptions
from specee.app.recommend.machine import Machine
from specee.app.tui.ascii_filter import GLYPHS, AsciiFilter, choose
from specee.app.tui.views import VIEWS

ANSWER = """# Foxes

> A **fox** is quick, $v = \\frac{s}{t}$ and $a - b$:

- it jumps
  - far

---

| fox | dog |
|-----|-----|
| red | any |

$$\\sum_{i=1}^n x_i^2$$

A caf\u00e9 in \u4e2d\u56fd, \U0001f468\u200d\U0001f469\u200d\U0001f467.
"""
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
SCREENS = {
    "f1": "Everywhere in the chat",
    "f3": "llama3.2-1b",
    "f4": "temperature",
    "f8": "Personas",
    "ctrl+p": "> ",
    "ctrl+b": "What is a fox?",
    "alt+up": "copy",
}
"""Keys, and what is there then."""
SIZES = {60: 40, 80: 40, 120: 40, 200: 50}


def session_in(folder: Path, answer: str = ANSWER) -> FakeSession:
    session = FakeSession(answer, load=LoadOptions(data_dir=str(folder / "data"), offline=True))
    use_drafts(session, len(answer.split(" ")))
    return session


async def ask(pilot: Pilot[Any]) -> None:
    await ready(pilot)
    await submit(pilot, "What is a fox?")
    await until(pilot, lambda: answers(pilot.app) and idle(pilot.app))


def test_what_stands_for_a_glyph_is_as_wide() -> None:
    for glyph, plain in GLYPHS.items():
        assert plain.isascii() and plain.isprintable() and len(plain) == cell_len(glyph), glyph


@pytest.mark.parametrize(
    "text",
    ["caf\u00e9 \u4e2d\u56fd", f"a{FAMILY}b", "\u2192\u2264\u2026 \u201cx\u201d \u00df", "\u2502 \u2588\u2581 e\u0301"],
)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "koi8-r"])
def test_what_follows_a_character_stays_in_its_place(text: str, encoding: str) -> None:
    shown = AsciiFilter(encoding)._shown(text)
    assert cell_len(shown) == cell_len(text)
    shown.encode(encoding)


@pytest.mark.parametrize(
    ("wanted", "environment", "shown"),
    [
        ("auto", {"LANG": "de_DE.UTF-8", "TERM": "xterm"}, None),
        ("auto", {"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, "- # v caf? ? ???"),
        ("auto", {"LANG": "POSIX"}, "- # v caf? ? ???"),
        ("auto", {"LANG": "C", "LC_CTYPE": "C.UTF-8"}, None),  # as Python leaves a start with LANG=C
        ("auto", {"TERM": "linux"}, "\u2500 \u2588 v caf\u00e9 \u2264 \u4e2dx"),
        ("on", {"LANG": "de_DE.UTF-8"}, "- # v caf\u00e9 \u2264 \u4e2dx"),
        ("off", {"LC_ALL": "C"}, None),
    ],
)
def test_when_it_is_used(wanted: Any, environment: dict[str, str], shown: str | None) -> None:
    found = choose(wanted, environment)
    text = "\u2500 \u2588 \u25bc caf\u00e9 \u2264 \u4e2dx"
    expected = None if shown is None else shown.replace("caf?", "cafe").replace("???", "??x")
    assert (None if found is None else found._shown(text)) == expected


def test_an_encoding_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        encoding = "iso-8859-15"

    monkeypatch.setattr(sys, "__stderr__", Stream())
    found = choose("auto", {"LANG": "de_DE@euro"})
    assert found is not None and found._shown("\u20ac \u2500 \u4e2d") == "\u20ac - ??"


async def test_all_that_is_drawn_is_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("specee.app.recommend.this_machine.look", lambda folders: Machine(8, 4, 16 * 10**9))
    async with chat(session_in(tmp_path), AsciiFilter("ascii")).run_test(size=(120, 40)) as pilot:
        await ask(pilot)
        for view in VIEWS:
            await submit(pilot, f"/view {view}")
            await pilot.press("ctrl+left")
            await until(pilot, lambda view=view: f"{view.capitalize()}: " in screen(pilot.app))
            assert screen(pilot.app).isascii(), view
        for key, part in SCREENS.items():
            await pilot.press(key)
            await until(pilot, lambda part=part: part in screen(pilot.app))
            assert screen(pilot.app).isascii(), key
            await pilot.press("escape")
            await until(pilot, lambda: len(pilot.app.screen_stack) == 1)


async def test_an_answer_in_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(session_in(tmp_path), AsciiFilter()).run_test(size=(100, 30)) as pilot:
        await ask(pilot)
        await check_sizes(pilot, "answer-{}-ascii", SIZES)
        assert "caf\u00e9" in screen(pilot.app) and answers(pilot.app) == [ANSWER]  # as it came, and so as it is copied


async def test_views_in_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat(session_in(tmp_path, "A fox is quick."), AsciiFilter()).run_test(size=(80, 24)) as pilot:
        await ask(pilot)
        for view in VIEWS:
            await submit(pilot, f"/view {view}")
            await check_soon(pilot, f"{view}-80-ascii")
