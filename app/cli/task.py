"""Long jobs in the engine process, as the command line runs them: with a line of progress, and Ctrl+C ends both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specee.app.cli.progress_line import ProgressLine
from specee.app.errors import AppError
from specee.app.options import LoadOptions


def run_task(
    name: str, load: LoadOptions, arguments: dict[str, Any], on_part: Callable[[Any], object] = lambda result: None
) -> Any:
    """Runs a job of app.engine.tasks in a fresh engine process and returns its result. Raises AppError.

    `on_part` takes the result as far as it is known, from jobs that have one.
    """
    from specee.app import paths
    from specee.app.engine.process import EngineProcess
    from specee.app.engine.protocol import Failed, Progress, RunTask, TaskDone, TaskPart

    engine = EngineProcess(paths.find(load.data_dir).logs)
    try:
        with ProgressLine() as line:
            engine.send(RunTask(name, load, arguments))
            for message in engine.messages():
                if isinstance(message, Progress):
                    line.show(message.what, "" if message.fraction is None else f"{message.fraction:4.0%}")
                elif isinstance(message, TaskPart):
                    on_part(message.result)
                elif isinstance(message, Failed):
                    raise AppError(message.title, message.message, message.exit_code)
                elif isinstance(message, TaskDone):
                    return message.result
    finally:
        engine.close()
