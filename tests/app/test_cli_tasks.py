"""Long jobs as the command line runs them: progress, errors, and what `calibrate` prints at its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specee.app import settings
from specee.app.cli import calibrate, progress_line, task, train
from specee.app.engine import task_process
from specee.app.engine.protocol import Calibrate, Failed, Progress, TaskDone, TaskPart
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
        assert isinstance(message, Calibrate)

    def messages(self) -> Iterator[Any]:
        yield from self.script

    def close(self) -> None:
        Engine.closed += 1


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calibrate:
    monkeypatch.setattr(task_process, "EngineProcess", Engine)
    monkeypatch.setattr(Engine, "closed", 0)
    return Calibrate(LoadOptions(data_dir=str(tmp_path)), None, 0, None)


def test_progress_and_the_result(
    job: Calibrate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Engine, "script", (Progress("recording", 0.1), Progress("recording", 0.2), TaskDone(RESULT)))
    assert task.run_task(job) == RESULT
    assert capsys.readouterr().err == "recording\n" and Engine.closed == 1


def test_what_is_known_on_the_way(job: Calibrate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "script", (TaskPart({"n": 1}), TaskPart({"n": 2}), TaskDone(RESULT)))
    parts: list[Any] = []
    assert task.run_task(job, on_part=parts.append) == RESULT and parts == [{"n": 1}, {"n": 2}]


def test_a_failure_keeps_its_exit_code(job: Calibrate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "script", (Failed("cannot calibrate", "this model is dense only", 3),))
    with pytest.raises(AppError, match="dense only") as caught:
        task.run_task(job)
    assert caught.value.exit_code == 3 and Engine.closed == 1


def test_a_job_begins_again_without_a_lost_worker(
    job: Calibrate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the one that is named, and at last on the CPU; only where the user allows it."""
    loads: list[LoadOptions] = []

    def messages(self: Engine) -> Iterator[Any]:
        workers = settings.names(loads[-1].rpc)
        if not workers:
            yield TaskDone(RESULT)
        yield Failed(f"lost the worker at {workers[0]}", "it was ended", of_device=True, worker=workers[0])

    monkeypatch.setattr(Engine, "send", lambda self, task: loads.append(task.load))
    monkeypatch.setattr(Engine, "messages", messages)
    load = replace(job.load, rpc="a:1,b:2", tensor_split="3,1", gpu_layers=5)
    with pytest.raises(AppError, match="lost the worker at a:1"):
        task.run_task(replace(job, load=load))
    loads.clear()
    assert task.run_task(replace(job, load=replace(load, cpu_fallback=True))) == RESULT
    assert [(one.rpc, one.gpu_layers, one.tensor_split) for one in loads] == [
        ("a:1,b:2", 5, "3,1"),
        ("b:2", 5, None),
        (None, None, None),
    ]
    assert capsys.readouterr().err.splitlines() == [
        "specee-chat: lost the worker at a:1: it was ended; it begins again with b:2",
        "specee-chat: lost the worker at b:2: it was ended; it begins again on the CPU alone",
    ]


def test_the_summary() -> None:
    assert calibrate.summary(RESULT).splitlines() == [
        "calibrated: tokens that the model is sure of may stop after layers 20, 24; threshold 0.740, "
        "for 99% agreement with all layers",
        "written to /c.gguf",
    ]


def test_what_training_says_at_its_end() -> None:
    result = {"tokens": 4000, "conversations": 31, "acceptance": [0.5, 0.25, 0.125], "tokens_per_step": 1.64}
    result |= {"path": "/h.gguf", "bytes": 12_000_000, "is_worth_using": True, "is_written": True}
    assert train.summary({**result, "is_written": False}).splitlines()[1:] == [
        "the one that is there is right more often, and stays: /h.gguf"
    ]
    assert train.summary(result).splitlines() == [
        "trained on 4000 tokens of 31 conversations: of its first guesses 50% are right, of the next ones 25% and 12%; "
        "1.64 tokens a step",
        "written to /h.gguf (12.0 MB)",
    ]


def test_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: now[0])
    left = progress_line.TimeLeft()
    assert left.show("talking", 0.5).strip() == "50%", "it goes on from an earlier run"
    now[0] += 5
    assert left.show("talking", 0.51).strip() == "51%"
    now[0] += 55
    assert left.show("talking", 0.6) == " 60%  4:00 left"
    assert left.show("talking", None) == ""
    assert left.show("training", 0.0).strip() == "0%"
    now[0] += 60
    assert left.show("training", 0.0).strip() == "0%"
    assert left.show("training", 1.0) == "100%"
