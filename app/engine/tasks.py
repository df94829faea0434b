"""Jobs in the engine process besides chats."""

from __future__ import annotations

from typing import Any

from specee.app.engine.protocol import Bench, Calibrate, Emit, MeasureSpeed, Optimize, Task, Train


def run(task: Task, emit: Emit) -> dict[str, Any]:
    """Runs the job and returns its result; progress goes to `emit`. Raises AppError."""
    if isinstance(task, Bench):
        from specee.app.bench.run import run_bench

        return run_bench(task.load, emit, task.prompts, task.choices, task.asked, task.stock_python)
    if isinstance(task, Calibrate):
        from specee.app.engine.calibration_task import run_calibration

        return run_calibration(task.load, emit, task.tokens, task.seed, task.output)
    if isinstance(task, Train):
        from specee.app.engine.training_task import run_training

        return run_training(task, emit)
    if isinstance(task, Optimize):
        from specee.app.engine.optimization_task import run_optimize

        return run_optimize(task.load, emit, task.output, task.force)
    if isinstance(task, MeasureSpeed):
        from specee.app.engine.speed_task import run_measure_speed

        return run_measure_speed(task.load)
    from specee.app import machine, settings

    found = machine.devices(settings.names(task.load.rpc))
    return {**machine.report(task.load.threads or machine.default_threads()), "devices": found}
