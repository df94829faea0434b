"""The list of models over the real engine, with the embedded model."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from fake_session import answers, idle, notices, ready, submit, until
from real_engine import missing_model

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_gguf

from specee.app.chat.session import Session
from specee.app.options import PLAIN_GREEDY, ChatOptions, LoadOptions, PolicyChoice
from specee.app.tui.app import ChatApp
from specee.app.tui.model_picker import ModelPicker
from specee.models import embedded

MISSING = missing_model()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"no engine to try: {MISSING}")


async def test_a_switch_and_one_that_fails(tmp_path: Path) -> None:
    """The chat goes on with another file, and where llama.cpp cannot load one, with the same."""
    for name in ("first.gguf", "second.gguf"):
        shutil.copy(str(embedded.path()), tmp_path / name)
    load = LoadOptions(model=str(tmp_path / "first.gguf"), data_dir=str(tmp_path / "data"), n_ctx=512)
    session = Session(load)
    app = ChatApp(session, ChatOptions(PolicyChoice("dense"), PLAIN_GREEDY, 8))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "What is the capital of France?")
        await until(pilot, lambda: len(session.branch) == 2 and idle(app))
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker))
        await pilot.press(*"second")
        second = str(tmp_path / "second.gguf")
        await until(pilot, lambda: app.screen._row is not None and app.screen._row.name == second)
        await until(pilot, lambda: app.screen._row.surveyed.read)
        await pilot.press("enter")
        await until(pilot, lambda: "second answers from here on" in notices(app)[-1] and idle(app))
        assert session.info is not None and session.info.name == "second" and len(answers(app)) == 1
        await submit(pilot, "And of Italy?")
        await until(pilot, lambda: len(session.branch) == 4 and idle(app))
        first, last = session.branch[1].stats, session.branch[3].stats
        assert first is not None and last is not None and last["prompt_tokens"] > first["prompt_tokens"] + 8
        tiny_gguf.write(tmp_path / "refused.gguf", "falcon")  # its header is right, its tensors are another model's
        await submit(pilot, f"/model {tmp_path / 'refused.gguf'}")
        await until(pilot, lambda: "second goes on answering" in notices(app)[-1] and idle(app))
        assert session.info is not None and session.info.name == "second"
        app.prompt.clear()
        (tmp_path / "first.gguf").unlink()
        await submit(pilot, f"/model {tmp_path / 'first.gguf'}")
        await until(pilot, lambda: "model not found" in notices(app)[-1] and idle(app))
        assert session.info is not None and session.info.name == "second"
    session.store.close()
