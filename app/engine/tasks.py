"""Jobs in the engine process besides chats: calibrate, bench, optimize, machine."""

from __future__ import annotations

from typing import Any

from specee.app.engine.protocol import Emit, RunTask
from specee.app.errors import USAGE, AppError


def run(task: RunTask, emit: Emit) -> Any:
    """Runs the job and returns its result; progress goes to `emit`. Raises AppError."""
    if task.name == "bench":
        from specee.app.bench.run import run_bench

        return run_bench(task.load, emit, **task.arguments)
    if task.name == "calibrate":
        from specee.app.engine.calibration_task import run_calibration

        return run_calibration(task.load, emit, **task.arguments)
    if task.name == "optimize":
        from specee.app.engine.optimization_task import run_optimize

        return run_optimize(task.load, emit, **task.arguments)
    if task.name == "machine":
        from specee.app import machine

        return machine.report(task.load.threads or machine.default_threads())
    raise AppError("unknown task", task.name, USAGE)
