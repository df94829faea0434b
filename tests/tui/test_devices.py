"""Layers on other devices, on the screen: where they run, and the question when a device is lost."""

from __future__ import annotations

from dataclasses import replace

from fake_session import INFO, FakeSession, chat, ready, screen, until

from specee.app.errors import AppError
from specee.app.options import LoadOptions
from specee.app.tui.gauge import Gauge
from specee.app.tui.question import Question
from specee.app.tui.status import status_lines

LOST = AppError("lost the worker at 10.0.0.2:50052", "it was ended, or the network fails", of_device=True)


def test_the_status_line_says_what_runs_where() -> None:
    places = "layers 1-15 on RPC0 (10.0.0.2:50052), layers 16-30 and the LM head on the CPU"
    assert places in status_lines(Gauge(), replace(INFO, places=places), "")[0]
    assert "on the CPU" not in status_lines(Gauge(), INFO, "")[0]


async def test_the_cpu_goes_on_if_the_user_wants_it() -> None:
    session = FakeSession(load=LoadOptions(rpc="10.0.0.2:50052", gpu_layers=15, n_ctx=512))
    async with chat(session).run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for key in ("escape", "enter"):
            session.error = LOST
            await pilot.press(*"hi", "enter")
            await until(pilot, lambda: isinstance(pilot.app.screen, Question))
            assert "Shall the CPU go on alone?" in screen(pilot.app) and "10.0.0.2:50052" in screen(pilot.app)
            assert session.loads[-1].rpc is not None
            await pilot.press(key)
            await until(pilot, lambda: not isinstance(pilot.app.screen, Question))
        await until(pilot, lambda: session.loads[-1] == LoadOptions(n_ctx=512) and session.info is not None)
        assert [turn.content for turn in session.branch if turn.role == "user"], "the chat is kept"
