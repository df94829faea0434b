"""Long jobs as the command line runs them: progress, errors, and what `calibrate` prints at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specee.app.cli import calibrate, task
from specee.app.engine import process
from specee.app.engine.protocol import Failed, Progress, RunTask, TaskDone, TaskPart
from specee.app.errors import AppError
from specee.app.options import LoadOptions

RESULT = {"path": "/c.gguf", "exit_layers": [20, 24], "threshold": 0.74, "target_agreement": 0.99}


class Engine:
    """An engine process that has its messages already."""

    script: tuple[Any, ...] = ()
    closed = 0

    def __init__(self, logs: Path) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        assert isinstance(message, RunTask) and message.name == "calibrate"

    def messages(self) -> Iterator[Any]:
        yield from self.script

    def close(self) -> None:
        Engine.closed += 1


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoadOptions:
    monkeypatch.setattr(process, "EngineProcess", Engine)
    monkeypatch.setattr(Engine, "closed", 0)
    return LoadOptions(data_dir=str(tmp_path))


def test_progress_and_the_result(
    load: LoadOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Engine, "script", (Progress("recording", 0.1), Progress("recording", 0.2), TaskDone(RESULT)))
    assert task.run_task("calibrate", load, {}) == RESULT
    assert capsys.readouterr().err == "recording\n" and Engine.closed == 1


def test_what_is_known_on_the_way(load: LoadOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "script", (TaskPart(1), TaskPart(2), TaskDone(RESULT)))
    parts: list[Any] = []
    assert task.run_task("calibrate", load, {}, on_part=parts.append) == RESULT and parts == [1, 2]


def test_a_failure_keeps_its_exit_code(load: LoadOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "script", (Failed("cannot calibrate", "this model is dense only", 3),))
    with pytest.raises(AppError, match="dense only") as caught:
        task.run_task("calibrate", load, {})
    assert caught.value.exit_code == 3 and Engine.closed == 1


def test_the_summary() -> None:
    assert calibrate.summary(RESULT).splitlines() == [
        "calibrated: tokens that the model is sure of may stop after layers 20, 24; threshold 0.740, "
        "for 99% agreement with all layers",
        "written to /c.gguf",
    ]
