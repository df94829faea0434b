"""What stands above the prompt until something is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_session import INFO, FakeSession, answers, idle, ready, screen, survey_ended, until
from picture import check_sizes

from specee.app.chat.history.store import Store
from specee.app.options import ChatOptions, LoadOptions
from specee.app.tui import welcome
from specee.app.tui.app import ChatApp
from specee.app.tui.ascii_filter import AsciiFilter
from specee.native import cpu

SIZES = {60: 24, 80: 24, 120: 30, 200: 50}


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "processor_name", lambda: "AMD Ryzen 7 7840U w/ Radeon 780M Graphics")
    monkeypatch.setattr(cpu, "matrix_flags", lambda: ["avx2", "fma", "avx512f", "avx512_vnni"])


def app_in(tmp_path: Path, store: Store | None = None, ascii_filter: AsciiFilter | None = None) -> ChatApp:
    load = LoadOptions(data_dir=str(tmp_path / "data"), offline=True)
    return ChatApp(FakeSession(load=load, store=store), ChatOptions(), first_start=True, ascii_filter=ascii_filter)


def test_what_runs_here() -> None:
    line = welcome.what_runs(INFO, 160.4)
    assert line.startswith("smollm2-135m answers · about 160 tokens/s · 2 threads · AMD Ryzen 7 7840U")
    assert line.endswith("(AVX512-VNNI)") and "about" not in welcome.what_runs(INFO, None)


@pytest.mark.parametrize("how", ["key", "tab", "mouse"])
async def test_a_first_start_offers_questions(how: str, tmp_path: Path) -> None:
    async with app_in(tmp_path).run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "is tiny" in screen(pilot.app))
        for part in ("smollm2-135m answers", "F3 shows better ones", *welcome.QUESTIONS, "Ctrl+P all commands"):
            await until(pilot, lambda part=part: part in screen(pilot.app))
        if how == "key":
            await pilot.press("alt+1")
        elif how == "tab":
            for question in (*welcome.QUESTIONS, welcome.QUESTIONS[0]):
                await pilot.press("tab")
                assert pilot.app.prompt.text == question
            await pilot.press("enter")
        else:
            await survey_ended(pilot)
            lines = screen(pilot.app).splitlines()
            line = next(i for i, text in enumerate(lines) if welcome.QUESTIONS[0] in text)
            await pilot.click(offset=(lines[line].index("Why") + 3, line))
        await until(pilot, lambda: answers(pilot.app) and idle(pilot.app))
        assert pilot.app.session.sent[0][0] == welcome.QUESTIONS[0]
        assert "is tiny" not in screen(pilot.app)
        await pilot.press("tab")
        assert pilot.app.prompt.text == ""


async def test_later_starts_offer_the_last_chat(tmp_path: Path) -> None:
    store = Store()
    for title in ("Old one", "Last one"):
        chat = store.new_chat(title, None, {})
        store.add_question(chat.id, None, title)
    async with app_in(tmp_path, store).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Ctrl+O goes on with your last chat: Last one" in screen(pilot.app))
        assert welcome.QUESTIONS[0] not in screen(pilot.app) and "Ctrl+B lists all" in screen(pilot.app)
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "goes on with" not in screen(pilot.app))
        assert pilot.app.session.chat.title == "Last one"
        await pilot.press("ctrl+o")  # and back
        await until(pilot, lambda: pilot.app.session.chat.title == "Old one")


async def test_it_never_pushes_the_prompt_off_the_screen(tmp_path: Path) -> None:
    async with app_in(tmp_path).run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "is tiny" in screen(pilot.app))
        for columns, rows in ((30, 30), (100, 20), (60, 16), (20, 8), (100, 30)):
            await pilot.resize_terminal(columns, rows)
            await until(pilot, lambda: "Ask something" in screen(pilot.app))
            await pilot.pause(0.1)
            assert "Ask something" in screen(pilot.app), (columns, rows)
        await until(pilot, lambda: "is tiny" in screen(pilot.app))


@pytest.mark.parametrize("form", ["dark", "mono", "ascii"])
async def test_it_as_it_looks(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if form == "mono":
        monkeypatch.setenv("NO_COLOR", "1")
    async with app_in(tmp_path, ascii_filter=AsciiFilter() if form == "ascii" else None).run_test() as pilot:
        await check_sizes(pilot, f"welcome-{{}}-{form}", SIZES if form == "dark" else {80: 24})
        if form == "dark":
            pilot.app.theme = "textual-light"
            await check_sizes(pilot, "welcome-{}-light", {80: 24})


async def test_it_goes_when_something_is_written(tmp_path: Path) -> None:
    async with app_in(tmp_path).run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "is tiny" in screen(pilot.app))
        await pilot.press("f1", "escape", "f8", "escape")
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1 and "is tiny" in screen(pilot.app))
        await pilot.press("h")
        await until(pilot, lambda: "is tiny" not in screen(pilot.app))


async def test_a_text_that_begins_with_a_digit_is_a_text(tmp_path: Path) -> None:
    async with app_in(tmp_path).run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "Alt+2" in screen(pilot.app))
        await pilot.press("2", "+", "2")
        await until(pilot, lambda: "is tiny" not in screen(pilot.app))
        assert pilot.app.prompt.text == "2+2"
        await pilot.press("alt+up", "alt+2")
        assert not pilot.app.session.asked and not pilot.app.busy
