"""Names of files behind an @ in the prompt, files that are dropped on the terminal, and long pastes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_session import FakeSession, chat, idle, ready, screen, until
from picture import check
from textual.events import Paste
from textual.pilot import Pilot

from specee.app.tui.entries import QuestionEntry
from specee.app.tui.pasted_text import LONG


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("notes.txt", "my notes.txt", "next.md", ".nobody"):
        (tmp_path / name).write_text("Text. " * 200)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "inner.txt").write_text("Inner.")
    return tmp_path


async def write(pilot: Pilot[Any], text: str) -> None:
    await pilot.press(*({"@": "at", " ": "space", ".": "full_stop", "/": "slash"}.get(key, key) for key in text))


async def shown(pilot: Pilot[Any], *parts: str) -> None:
    await until(pilot, lambda: all(part in screen(pilot.app) for part in parts))


async def test_names_are_listed_and_taken(folder: Path) -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        prompt = pilot.app.prompt
        await write(pilot, "Read @n")
        await shown(pilot, "> new/", "  notes.txt    1 kB, about 300 tokens", "next.md")
        assert "nobody" not in screen(pilot.app) and "my notes" not in screen(pilot.app)
        await pilot.press("tab")
        assert prompt.text == "Read @new/"
        await shown(pilot, "> inner.txt")
        await pilot.press("backspace", "backspace", "backspace", "backspace", *"my")
        await shown(pilot, "> my notes.txt")
        await pilot.press("enter")
        assert prompt.text == 'Read @"my notes.txt" '
        await shown(pilot, "attached: my notes.txt (1 kB, about 300 tokens)")
        await write(pilot, "and @n")
        await shown(pilot, "> new/")
        await pilot.press("down", "down", "up", "down", "tab")
        assert prompt.text == 'Read @"my notes.txt" and @notes.txt '
        await pilot.press("enter")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert session.sent[0][0].count("Text. Text.") and "notes.txt" in session.sent[0][0]


async def test_a_name_that_is_written_is_sent_and_esc_hides_the_list() -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await write(pilot, "See @notes.txt")
        await shown(pilot, "attached: notes.txt")
        assert "Tab takes" not in screen(pilot.app)
        await pilot.press("enter")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        await write(pilot, "Hi @n")
        await shown(pilot, "> new/")
        await pilot.press("escape")
        await until(pilot, lambda: "new/" not in screen(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: len(session.sent) == 2 and idle(pilot.app))
        assert session.sent[1][0] == "Hi @n"
        await write(pilot, "@.")
        await shown(pilot, ".nobody")


async def test_the_disk_is_asked_beside_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder on a silent network share."""
    import threading

    go_on, asked = threading.Event(), threading.Event()

    def choices(name: str) -> list[Any]:
        asked.set()
        go_on.wait(60)
        return []

    monkeypatch.setattr("specee.app.chat.file_completion.choices", choices)
    async with chat(FakeSession()).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await write(pilot, "@n")
        await until(pilot, asked.is_set)
        await write(pilot, "ew")
        assert pilot.app.prompt.text == "@new"
        go_on.set()


async def test_a_dropped_file_becomes_an_attachment(folder: Path) -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        path = folder / "my notes.txt"
        for before, pasted, after in (
            ("", f"'{path}'", f'@"{path}" '),
            ("Read", f"file://{path}".replace(" ", "%20"), f'Read @"{path}" '),
            ("@", str(path), f'@"{path}" '),
            ("", f"Read {path}", f"Read {path}"),
            ("/export ", str(folder / "notes.txt"), f"/export {folder / 'notes.txt'}"),
        ):
            pilot.app.prompt.write(before)
            pilot.app.post_message(Paste(pasted))
            await until(pilot, lambda after=after: pilot.app.prompt.text == after)


async def test_keys_after_a_long_paste_have_little_to_lay_out() -> None:
    """A mark stands for it, and what is sent is the text itself."""
    session = FakeSession()
    async with chat(session).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        prompt, line, lines = pilot.app.prompt, "word " * 200_000, "some words\n" * 90_000
        await write(pilot, "a ")
        pilot.app.post_message(Paste(line))
        await shown(pilot, "[pasted text 1: 1 line, 1.0 MB]")
        pilot.app.post_message(Paste(lines))
        await write(pilot, " b")
        await until(pilot, lambda: prompt.text.endswith("] b"))
        assert len(prompt.text) < 100 < LONG and prompt.content == f"a {line}{lines} b"
        prompt.restore("before")
        assert prompt.content == f"before\na {line}{lines} b"
        prompt.write(prompt.content)
        assert len(prompt.text) < 100 and prompt.content == f"before\na {line}{lines} b"
        await pilot.press("ctrl+underscore")
        pilot.app.prompt.clear()
        prompt.write("x" * (2 * LONG))
        assert len(prompt.text) < 100 and prompt.content == "x" * (2 * LONG)
        await pilot.press("enter")
        await until(pilot, lambda: session.sent and idle(pilot.app))
        assert session.sent[0][0] == "x" * (2 * LONG)
        shown_of_it = next(entry for entry in pilot.app.conversation.entries if isinstance(entry, QuestionEntry))
        assert len(shown_of_it.lines) < 200 and "more characters, which the model gets" in shown_of_it.lines[-1].plain
        assert shown_of_it.text == "x" * (2 * LONG)


async def test_the_list_as_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(FakeSession()).run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        pilot.app.prompt.cursor_blink = False
        await write(pilot, "See @notes.txt and @n")
        await shown(pilot, "> new/", "attached:")
        await pilot.pause(0.1)
        check("files-60-dark", pilot.app)
