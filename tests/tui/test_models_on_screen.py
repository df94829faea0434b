"""Models that are loaded, fetched and changed while the screen is there."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_session import INFO, FakeSession, chat, idle, ready, screen, submit, until

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_gguf

from specee.app.errors import AppError
from specee.models.transfer import TransferProgress


async def test_a_model_that_cannot_be_loaded_is_an_error_on_the_screen() -> None:
    session = FakeSession(load_error=AppError("not a model", "x.gguf is not a GGUF file", 3))
    async with chat(session).run_test() as pilot:
        await until(pilot, lambda: "not a model: x.gguf is not a GGUF file" in screen(pilot.app))


async def test_a_download_shows_its_progress_and_esc_keeps_what_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = [], threading.Event()

    def pull(name: str, on_progress: Any, *, offline: bool) -> Path:
        asked.append((name, offline))
        while not go_on.wait(0.02):
            on_progress(TransferProgress(30_000_000, 100_000_000, 5e6, 14.0))
        return Path(__file__)

    monkeypatch.setattr("specee.models.download.pull", pull)
    async with chat(FakeSession()).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, "/pull llama3.2-1b")
        await until(pilot, lambda: "downloading llama3.2-1b:  30%  30.0 MB of 100.0 MB" in screen(pilot.app))
        await pilot.press("escape")
        await until(pilot, lambda: "stopped: what has arrived is kept" in screen(pilot.app) and idle(pilot.app))
        await submit(pilot, "/pull llama3.2-1b")
        await until(pilot, lambda: len(asked) == 2)
        go_on.set()
        await until(pilot, lambda: "llama3.2-1b is downloaded" in screen(pilot.app) and idle(pilot.app))
        await submit(pilot, "/pull")
        await submit(pilot, "/model no-such-model")
        await until(pilot, lambda: "no model given" in screen(pilot.app) and "no-such-model" in screen(pilot.app))
        assert asked == [("llama3.2-1b", False)] * 2


@pytest.mark.parametrize(
    "model", ["/etc/passwd", "/etc", "{}/empty.gguf", "{}/cut.gguf", "nonsense", "/dev/null", "hf:x"]
)
async def test_a_model_that_is_none_leaves_the_one_that_is_loaded(model: str, tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\3\0\0\0")
    line = f"/model {model.format(tmp_path)}"
    session = FakeSession()
    async with chat(session).run_test(size=(160, 30)) as pilot:
        await ready(pilot)
        await submit(pilot, line)
        await until(pilot, lambda: pilot.app.prompt.text == line and idle(pilot.app))
        assert len(session.loads) == 1 and session.info is not None
        assert "not running" not in screen(pilot.app)


@pytest.mark.parametrize("line", ["/model {}/other.gguf", "/ctx 512"])
async def test_what_cannot_be_loaded_gives_way_to_what_was(line: str, tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "other.gguf", "llama")
    line = line.format(tmp_path)
    session = FakeSession()
    async with chat(session).run_test(size=(160, 30)) as pilot:
        await ready(pilot)
        before = session.loads[-1]
        session.refused_load = AppError("too little memory", "close other programs")
        await submit(pilot, line)
        await until(pilot, lambda: pilot.app.prompt.text == line and idle(pilot.app))
        assert len(session.loads) == 3 and session.loads[-1] == before and session.info is not None
        assert "too little memory" in screen(pilot.app) and "not running" not in screen(pilot.app)


async def test_another_model_answers(tmp_path: Path) -> None:
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        tiny_gguf.write(tmp_path / "other.gguf", "llama")
        await submit(pilot, f"/model {tmp_path}/other.gguf")
        await until(pilot, lambda: session.loads[-1].model == f"{tmp_path}/other.gguf" and idle(pilot.app))
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))


@pytest.mark.parametrize("answer", ["enter", "escape"])
async def test_a_model_that_does_not_fit_is_asked_about(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_gguf.write(tmp_path / "now.gguf", "llama")
    tiny_gguf.write(tmp_path / "large.gguf", "llama", n_layer=40, width=4)
    monkeypatch.setattr("fake_session.INFO", replace(INFO, path=str(tmp_path / "now.gguf")))
    monkeypatch.setattr("specee.app.memory.free_ram", lambda: 1 << 20)
    session = FakeSession()
    async with chat(session).run_test() as pilot:
        await ready(pilot)
        await submit(pilot, f"/model {tmp_path}/now.gguf")  # the memory that it gives back is enough for it
        await until(pilot, lambda: len(session.loads) == 2 and idle(pilot.app))
        await submit(pilot, f"/model {tmp_path}/large.gguf")
        await until(pilot, lambda: "Loading it may fail" in screen(pilot.app))
        assert len(session.loads) == 2
        await pilot.press(answer)
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1 and idle(pilot.app))
        assert len(session.loads) == (3 if answer == "enter" else 2)
        await submit(pilot, "Hi")
        await until(pilot, lambda: session.sent and idle(pilot.app))


async def test_another_model_drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    async with chat(session).run_test(size=(160, 30)) as pilot:
        await ready(pilot)
        (tmp_path / "small.gguf").write_bytes(b"GGUF")
        await submit(pilot, f"/set drafter {tmp_path}/small.gguf")
        await until(pilot, lambda: "damaged model" in screen(pilot.app) and idle(pilot.app))
        assert len(session.loads) == 1 and session.info is not None, "the engine goes on as it was"
        monkeypatch.setattr("specee.app.chat.session.check_drafter", lambda load: None)
        await submit(pilot, f"/set drafter {tmp_path}/small.gguf")
        await until(pilot, lambda: session.loads[-1].drafter == f"{tmp_path}/small.gguf" and idle(pilot.app))
        await submit(pilot, "/set drafter none")
        await until(pilot, lambda: session.loads[-1].drafter == "none" and idle(pilot.app))
        monkeypatch.undo()
        await submit(pilot, "/set drafter no-such-model")
        await until(pilot, lambda: "no-such-model" in screen(pilot.app) and "model not found" in screen(pilot.app))
        await submit(pilot, "/set")
        await until(pilot, lambda: "drafter none" in screen(pilot.app))
