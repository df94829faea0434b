"""Long jobs in the engine process, as the command line runs them: with a line of progress, and Ctrl+C ends both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from specee.app.cli.progress_line import ProgressLine, TimeLeft
from specee.app.engine.protocol import Notice, Progress, Task


def run_task(task: Task, on_part: Callable[[dict[str, Any]], object] = lambda result: None) -> dict[str, Any]:
    """Runs a job in a fresh engine process and returns its result. Raises AppError.

    `on_part` takes the result as far as it is known, from jobs that have one.
    """
    from specee.app import paths
    from specee.app.engine import task_process

    left = TimeLeft()
    with ProgressLine() as line:

        def show(event: task_process.TaskEvent) -> None:
            if isinstance(event, Notice):
                line.clear()
                print(f"specee-chat: {event.text}", file=sys.stderr)
            elif isinstance(event, Progress):
                line.show(event.what, left.show(event.what, event.fraction))
            else:
                on_part(event.result)

        return task_process.run_task(task, paths.find(task.load.data_dir).logs, show)
