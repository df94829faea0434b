"""Snapshots of the screen, as text: characters and styles by hue (SVGs with the theme's very colours and Textual's own
markup change with each of its releases, and pinning it would hide from us what users get)."""

from __future__ import annotations

from typing import Any

import pytest
from fake_session import FakeSession, chat, idle, make_stats, ready, submit, until, use_drafts
from picture import check
from textual.pilot import Pilot

from specee.app.tui.views import VIEWS

ANSWER = """# Foxes

A **fox** is quick, `lazy` dogs are *not*:

1. it jumps, $v = \\frac{s}{t}$
2. it runs, see [here](https://x.y)
   - far

```python
def jump(over):
    return over  # the dog
```

| fox | dog |
|-----|-----|
| red | any |
"""
SIZES = {60: 20, 80: 24, 120: 40}
WIDEST = (200, 50)
COUNTS = ("exits", "probes", "checks", "checks_failed", "rolled_back", "check_seconds", "draft_seconds")


@pytest.fixture(params=["dark", "light", "mono"])
def theme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if request.param == "mono":
        monkeypatch.setenv("NO_COLOR", "1")
    return str(request.param)


def session_with_answer() -> FakeSession:
    session = FakeSession(ANSWER)
    tokens = len(ANSWER.split(" "))
    counts = {**dict.fromkeys(COUNTS, 1), "tokens": tokens}
    session.stats = make_stats(tokens=tokens, reused=7, policy_stats=counts)
    return session


async def ask(pilot: Pilot[Any], theme: str) -> None:
    """Asks the question, and waits until its answer is drawn."""
    app = pilot.app
    app.theme = "textual-light" if theme == "light" else "textual-dark"
    await ready(pilot)
    await submit(pilot, "What is a fox?")
    await until(pilot, lambda: app.session.sent and idle(app))
    await drawn(pilot)


async def drawn(pilot: Pilot[Any]) -> None:
    await pilot.wait_for_animation()
    await pilot.pause(0.1)


@pytest.mark.parametrize("width", SIZES)
async def test_an_answer(theme: str, width: int) -> None:
    async with chat(session_with_answer()).run_test(size=(width, SIZES[width])) as pilot:
        await ask(pilot, theme)
        check(f"answer-{width}-{theme}", pilot.app)


async def test_an_answer_where_there_is_much_room(theme: str) -> None:
    async with chat(session_with_answer()).run_test(size=WIDEST) as pilot:
        await ask(pilot, theme)
        await pilot.press("alt+up")
        await drawn(pilot)
        check(f"answer-200-{theme}", pilot.app)


async def test_what_can_be_done_with_a_message_where_there_is_little_room(theme: str) -> None:
    async with chat(session_with_answer()).run_test(size=(60, 30)) as pilot:
        await ask(pilot, theme)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(pilot.app.session.sent) == 2 and idle(pilot.app))
        await pilot.press("alt+up")
        await drawn(pilot)
        check(f"message-60-{theme}", pilot.app)


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "columns"])
async def test_views_where_there_is_little_room(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(session_with_answer()).run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        await submit(pilot, f"/view {view}")
        await ask(pilot, "dark")
        check(f"{view}-60-dark", pilot.app)


@pytest.mark.parametrize("view", ["columns", "tokens", "totals"])
async def test_views_whose_colours_are_glyphs_too(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat(session_with_answer()).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await submit(pilot, f"/view {view}")
        await ask(pilot, "mono")
        check(f"{view}-80-mono", pilot.app)


@pytest.mark.parametrize("view", ["columns", "tokens", "token", "threshold"])
async def test_views_of_drafts(view: str, theme: str) -> None:
    session = session_with_answer()
    use_drafts(session, len(ANSWER.split(" ")))
    async with chat(session).run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        await submit(pilot, f"/view {view}")
        await ask(pilot, theme)
        check(f"drafts-{view}-60-{theme}", pilot.app)


@pytest.mark.parametrize(("name", "line"), [("race", "/race"), ("help", "/help"), ("error", "/what")])
async def test_what_commands_show(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(session_with_answer()).run_test(size=(80, 24)) as pilot:
        await ask(pilot, "dark")
        await submit(pilot, line)
        await pilot.pause(0.1)
        await until(pilot, lambda: idle(pilot.app))
        await drawn(pilot)
        check(f"{name}-80-dark", pilot.app)


async def test_chats_at_the_side_where_there_is_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(session_with_answer()).run_test(size=(80, 24)) as pilot:
        await ask(pilot, "dark")
        await pilot.press("ctrl+b")
        await drawn(pilot)
        check("side-80-dark", pilot.app)
