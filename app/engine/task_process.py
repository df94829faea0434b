"""A job in an engine process of its own, from its beginning to its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from specee.app.engine.process import EngineProcess
from specee.app.engine.protocol import Failed, Notice, Progress, Task, TaskDone, TaskPart
from specee.app.errors import AppError

TaskEvent = Progress | TaskPart | Notice


def run_task(task: Task, logs: Path, on_event: Callable[[TaskEvent], object] = lambda event: None) -> dict[str, Any]:
    """Returns the job's result; `on_event` takes what comes before it. Raises AppError.

    Where a device fails without which the job may go on, it begins again.
    """
    try:
        return _run(task, logs, on_event)
    except AppError as error:
        load = task.load
        if not (error.of_device and load.cpu_fallback and load.has_devices):
            raise
        left = load.without(error.worker)
        where = "on the CPU alone" if left.rpc is None else f"with {left.rpc}"
        on_event(Notice(f"{error.line}; it begins again {where}"))
        return run_task(replace(task, load=left), logs, on_event)


def _run(task: Task, logs: Path, on_event: Callable[[TaskEvent], object]) -> dict[str, Any]:
    engine = EngineProcess(logs)
    try:
        engine.send(task)
        for message in engine.messages():
            if isinstance(message, Failed):
                raise message.as_error()
            if isinstance(message, TaskDone):
                return message.result
            if isinstance(message, (Progress, TaskPart)):
                on_event(message)
        raise AssertionError("the messages of an engine do not end")
    finally:
        engine.close()
