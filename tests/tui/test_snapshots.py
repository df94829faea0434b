"""Snapshots of the screen, as text: characters and styles by hue (SVGs with the theme's very colours and Textual's own
markup change with each of its releases, and pinning it would hide from us what users get)."""

from __future__ import annotations

from typing import Any

import pytest
from fake_session import FakeSession, chat, figures, idle, ready, say, until
from picture import check
from textual.pilot import Pilot

from specee.app.tui.views import VIEWS

ANSWER = """# Foxes

A **fox** is quick, `lazy` dogs are *not*:

1. it jumps
2. it runs

```python
def jump(over):
    return over  # the dog
```

| fox | dog |
|-----|-----|
| red | any |
"""
SIZES = {60: 20, 80: 24, 120: 40}
COUNTS = ("exits", "probes", "checks", "checks_failed", "rolled_back", "check_seconds", "draft_seconds")


@pytest.fixture(params=["dark", "light", "mono"])
def look(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if request.param == "mono":
        monkeypatch.setenv("NO_COLOR", "1")
    return str(request.param)


def made() -> FakeSession:
    session = FakeSession(ANSWER)
    tokens = len(ANSWER.split(" "))
    counts = {**dict.fromkeys(COUNTS, 1), "tokens": tokens}
    session.stats = figures(tokens=tokens, reused=7, policy_stats=counts)
    return session


async def asked(pilot: Pilot[Any], look: str) -> None:
    """The question was answered, and all is drawn."""
    app = pilot.app
    app.theme = "textual-light" if look == "light" else "textual-dark"
    await ready(pilot)
    await say(pilot, "What is a fox?")
    await until(pilot, lambda: app.session.sent and idle(app))
    await settled(pilot)


async def settled(pilot: Pilot[Any]) -> None:
    await pilot.wait_for_animation()
    await pilot.pause(0.1)


@pytest.mark.parametrize("width", SIZES)
async def test_an_answer(look: str, width: int) -> None:
    async with chat(made()).run_test(size=(width, SIZES[width])) as pilot:
        await asked(pilot, look)
        check(f"answer-{width}-{look}", pilot.app)


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "skyline"])
async def test_views_where_there_is_little_room(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(made()).run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        await say(pilot, f"/view {view}")
        await asked(pilot, "dark")
        check(f"{view}-60-dark", pilot.app)


@pytest.mark.parametrize("view", ["skyline", "lens", "odometer"])
async def test_views_whose_colours_are_glyphs_too(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat(made()).run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await say(pilot, f"/view {view}")
        await asked(pilot, "mono")
        check(f"{view}-80-mono", pilot.app)


@pytest.mark.parametrize(("name", "line"), [("race", "/race"), ("help", "/help"), ("error", "/what")])
async def test_what_commands_show(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(made()).run_test(size=(80, 24)) as pilot:
        await asked(pilot, "dark")
        await say(pilot, line)
        await pilot.pause(0.1)
        await until(pilot, lambda: idle(pilot.app))
        await settled(pilot)
        check(f"{name}-80-dark", pilot.app)


async def test_chats_at_the_side_where_there_is_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with chat(made()).run_test(size=(80, 24)) as pilot:
        await asked(pilot, "dark")
        await pilot.press("ctrl+b")
        await settled(pilot)
        check("side-80-dark", pilot.app)
