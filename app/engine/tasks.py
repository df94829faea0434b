"""Jobs in the engine process besides chats: calibrate, bench, optimize, machine; their progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from specee.app.engine.protocol import Failed, Progress, RunTask, TaskDone
from specee.app.errors import USAGE, AppError
from specee.app.options import LoadOptions

Emit = Callable[[object], None]


def run_task(name: str, load: LoadOptions, arguments: dict[str, Any]) -> Any:
    """Runs a job in a fresh engine process and returns its result. Raises AppError. For the command line."""
    from specee.app import paths
    from specee.app.engine.process import EngineProcess

    engine = EngineProcess(paths.find(load.data_dir).logs)
    line = _ProgressLine()
    try:
        engine.send(RunTask(name, load, arguments))
        for message in engine.messages():
            if isinstance(message, Progress):
                line.show(message)
            elif isinstance(message, Failed):
                raise AppError(message.title, message.message, message.exit_code)
            elif isinstance(message, TaskDone):
                return message.result
    finally:
        line.clear()
        engine.close()


def run(task: RunTask, emit: Emit) -> Any:
    """The engine process's side."""
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


def calibration_summary(result: dict[str, Any]) -> str:
    """What a user wants to know at the end of `calibrate`."""
    layers = ", ".join(str(layer) for layer in result["exit_layers"])
    return (
        f"calibrated: tokens may skip the layers after layer {layers}; threshold {result['threshold']:.3f} "
        f"for {result['target_agreement']:.0%} agreement with dense\nwritten to {result['path']}"
    )


class _ProgressLine:
    """One line that is rewritten on a terminal; elsewhere a line at each new step."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def show(self, progress: Progress) -> None:
        if self._terminal:
            share = "" if progress.fraction is None else f" {progress.fraction:4.0%}"
            sys.stderr.write(f"\r\x1b[2K{progress.what}{share}")
            sys.stderr.flush()
        elif progress.what != self._last:
            print(progress.what, file=sys.stderr)
        self._last = progress.what

    def clear(self) -> None:
        if self._terminal and self._last:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
