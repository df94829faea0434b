"""Long jobs in the engine process, as the command line runs them: with a line of progress, and Ctrl+C ends both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specee.app.cli.progress_line import ProgressLine, TimeLeft
from specee.app.engine.protocol import Failed, Progress, Task, TaskDone, TaskPart
from specee.app.errors import AppError


def run_task(task: Task, on_part: Callable[[dict[str, Any]], object] = lambda result: None) -> dict[str, Any]:
    """Runs a job in a fresh engine process and returns its result. Raises AppError.

    `on_part` takes the result as far as it is known, from jobs that have one.
    """
    from specee.app import paths
    from specee.app.engine.process import EngineProcess

    engine = EngineProcess(paths.find(task.load.data_dir).logs)
    try:
        left = TimeLeft()
        with ProgressLine() as line:
            engine.send(task)
            for message in engine.messages():
                if isinstance(message, Progress):
                    line.show(message.what, left.show(message.what, message.fraction))
                elif isinstance(message, TaskPart):
                    on_part(message.result)
                elif isinstance(message, Failed):
                    raise AppError(message.title, message.message, message.exit_code)
                elif isinstance(message, TaskDone):
                    return message.result
        raise AssertionError("the messages of an engine do not end")
    finally:
        engine.close()
