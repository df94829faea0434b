"""A job in an engine process of its own, from its beginning to its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from specee.app.engine.process import EngineProcess
from specee.app.engine.protocol import Failed, Progress, Task, TaskDone, TaskPart
from specee.app.errors import AppError


def run_task(
    task: Task, logs: Path, on_event: Callable[[Progress | TaskPart], object] = lambda event: None
) -> dict[str, Any]:
    """Returns the job's result; `on_event` takes what comes before it. Raises AppError."""
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
