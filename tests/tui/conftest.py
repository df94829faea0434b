"""Tests here import their helpers (fake_session, picture) and the scripts of tests/benchmarks by name."""

import sys
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]


@pytest.fixture(autouse=True)
def pauses_end_when_messages_are_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came during a pause is handled before it ends, however busy the machine is."""
    pause = Pilot.pause

    async def whole(pilot: Pilot[Any], delay: float | None = None) -> None:
        await pause(pilot, delay)
        if delay is not None:
            await pause(pilot, 0)

    monkeypatch.setattr(Pilot, "pause", whole)
