"""Drafted tokens on the screen: in the views, in a race, and in a chat that is opened again."""

from __future__ import annotations

import pytest
from fake_session import FakeSession, answers, chat, idle, ready, screen, submit, until, use_drafts
from textual.color import Color
from textual.pilot import Pilot

from specee.app.tui.drafters import SOURCES, variable
from specee.app.tui.views.columns import Columns

ANSWER = "one two three four five six seven eight nine ten eleven twelve"
WHERE = "4 from common phrases, 2 from this chat"


@pytest.fixture
def session() -> FakeSession:
    session = FakeSession(ANSWER)
    use_drafts(session, 12)
    return session


async def ask(pilot: Pilot[int]) -> None:
    await ready(pilot)
    await submit(pilot, "Hi")
    await until(pilot, lambda: answers(pilot.app) == [ANSWER] and idle(pilot.app))
    await pilot.pause(0.3)


async def test_columns_are_as_high_as_their_step(session: FakeSession) -> None:
    async with chat(session).run_test(size=(98, 30)) as pilot:
        await ask(pilot)
        columns = pilot.app.query_one(Columns)
        *bars, caption = columns.rows()
        bottom = "".join(text for text, _ in bars[-1])
        second = "".join(text for text, _ in bars[-2])
        assert bottom == "▄█████▄█████" and second == " ▄▄▄   ▄▄▄  "
        colours = [style.color for text, style in bars[-1] for _ in text]
        assert len(set(colours[:2])) == 2 and colours[1] == colours[2] and colours[0] == colours[3]
        assert len({colours[0], colours[1], colours[4]}) == 3
        said = "".join(text for text, _ in caption)
        assert said == "height: tokens a step █ model █ this chat █ common phrases"
        shown = " ".join(screen(pilot.app).split())
        assert "81.5 tokens/s, dense here 53.2" in shown
        assert f"1.83 tokens a step; 6 of 12 tokens were drafted: {WHERE} (policy chain)" in shown


@pytest.mark.parametrize("size", [(60, 20), (40, 14)])
async def test_the_caption_fits_small_screens(session: FakeSession, size: tuple[int, int]) -> None:
    async with chat(session).run_test(size=size) as pilot:
        await ask(pilot)
        columns = pilot.app.query_one(Columns)
        assert columns.size.height == 4 and "twelve" in screen(pilot.app)
        caption = "".join(text for text, _ in columns.rows()[-1])
        assert caption.startswith("height: tokens a step █ model") and len(caption) <= size[0]


async def test_without_colours_letters_stand_for_drafters(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ask(pilot)
        *_, bottom, caption = pilot.app.query_one(Columns).rows()
        assert "".join(text for text, _ in bottom) == "▄pp█c█▄pp█c█"
        assert "".join(text for text, _ in caption).endswith("c this chat p common phrases")
        await submit(pilot, "/view tokens")
        await pilot.pause(0.2)
        assert "   pppppppppp     ccccc" in screen(pilot.app)


async def test_drafters_have_different_colours_in_all_themes() -> None:
    app = chat(FakeSession())
    async with app.run_test() as pilot:
        for theme in app.available_themes:
            app.theme = theme
            await pilot.pause()
            colours = [Color.parse(app.theme_variables[variable(name)]) for name in SOURCES]
            assert len(set(colours)) == len(colours), theme


async def test_another_theme_has_other_colours(session: FakeSession) -> None:
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ask(pilot)
        columns = pilot.app.query_one(Columns)
        before = columns.drafter_style("suffix")
        drawn = columns.render_line(4)
        pilot.app.theme = "textual-light"
        await pilot.pause(0.1)
        assert columns.drafter_style("suffix") != before and columns.render_line(4) != drawn


async def test_the_token_view_says_what_drafted_a_token(session: FakeSession) -> None:
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ask(pilot)
        await submit(pilot, "/view token")
        await pilot.pause(0.2)
        assert "token 12 of 12 was chosen by the model itself" in screen(pilot.app)
        await pilot.press("ctrl+left", "ctrl+left", "ctrl+left")
        await pilot.pause(0.2)
        shown = screen(pilot.app)
        assert "token 9 of 12 was drafted from common phrases" in shown and "its step gave 3 tokens" in shown


async def test_the_other_views_count_drafts(session: FakeSession) -> None:
    async with chat(session).run_test(size=(80, 30)) as pilot:
        await ask(pilot)
        for view, says in (
            ("costs", "5 of 12 drafted tokens were accepted"),
            ("totals", "tokens drafted  6"),
            ("histogram", "2    2    2    ·    ·"),
        ):
            await submit(pilot, f"/view {view}")
            await pilot.pause(0.2)
            assert says in screen(pilot.app)


async def test_a_race_colours_drafts_and_compares(session: FakeSession) -> None:
    async with chat(session).run_test(size=(90, 40)) as pilot:
        await ask(pilot)
        await submit(pilot, "/race")
        await until(pilot, lambda: len(session.asked) == 3 and idle(pilot.app))
        await pilot.pause(0.3)
        shown = screen(pilot.app)
        assert "auto: 81.5 tokens/s, 1.83 tokens a step, 6 of 12 tokens drafted" in shown
        assert "drafted: █ 2 from this chat  █ 4 from common phrases" in shown
        assert "the same text; auto ran at 1.00 times the speed of dense" in shown


async def test_a_chat_that_is_opened_again_shows_its_drafts(session: FakeSession) -> None:
    async with chat(session).run_test(size=(98, 30)) as pilot:
        await ask(pilot)
        rows = pilot.app.query_one(Columns).rows()
        shown = screen(pilot.app)
        await submit(pilot, "/new")
        await pilot.pause(0.2)
        assert WHERE not in screen(pilot.app)
        await submit(pilot, "/resume 1")
        await until(pilot, lambda: answers(pilot.app) == [ANSWER])
        await pilot.pause(0.2)
        assert pilot.app.query_one(Columns).rows() == rows
        figures = "tokens/s, dense here"
        again = screen(pilot.app)
        assert WHERE in " ".join(again.split()) and [line for line in again.splitlines() if figures in line] == [
            line for line in shown.splitlines() if figures in line
        ]
