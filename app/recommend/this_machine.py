"""This machine, as it is now: memory that is free, GPUs, and how fast it decodes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from specee.app import machine as processor
from specee.app import memory
from specee.app.engine.protocol import MeasureSpeed
from specee.app.engine.task_process import run_task
from specee.app.errors import AppError
from specee.app.options import LoadOptions
from specee.app.paths import Paths
from specee.app.recommend.machine import Gpu, Machine
from specee.app.recommend.speed_store import CPU, SpeedStore, decoding_speed
from specee.models import cache
from specee.models.errors import ModelError
from specee.native import cpu
from specee.native.errors import NativeError


def look(folders: Paths, threads: int | None = None) -> Machine:
    """Takes about a second the first time, and half of one later: what was measured is kept in the data folder.

    A process of its own asks the native library; where it cannot, `problem` says why, and nothing is known of speed.
    """
    seen = _seen(threads)
    try:
        return _with_report(seen, _measure(folders, seen.threads))
    except AppError as error:
        return replace(seen, problem=error.line)


def remembered(folders: Paths, threads: int | None = None) -> Machine:
    """The same without GPUs, as far as it is known without measuring; loads the native library."""
    seen = _seen(threads)
    try:
        build = processor.library_build()
    except NativeError as error:
        return replace(seen, problem=f"{error.title}: {error.message}")
    kept = SpeedStore(folders.speed, seen.threads, build).find(CPU)
    return replace(seen, speed=decoding_speed(kept), build=build, busy=bool(kept and kept.get("busy")))


def _seen(threads: int | None) -> Machine:
    return Machine(
        cores=cpu.usable_cores(),
        threads=threads or processor.default_threads(),
        free_ram=memory.free_ram(),
        free_disk=_free_disk(),
    )


def _free_disk() -> int | None:
    try:
        folder = cache.root()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free
    except (OSError, ModelError):  # the cache is nowhere
        return None


def _measure(folders: Paths, threads: int) -> dict[str, Any]:
    return run_task(MeasureSpeed(LoadOptions(threads=threads, data_dir=str(folders.data))), folders.logs)


def _with_report(seen: Machine, report: dict[str, Any]) -> Machine:
    """What app/engine/speed_task.py found."""
    gpus = tuple(
        Gpu(gpu["name"], gpu["free_bytes"], gpu["total_bytes"], decoding_speed(gpu["speed"])) for gpu in report["gpus"]
    )
    return replace(
        seen,
        gpus=gpus,
        speed=decoding_speed(report["speed"]),
        busy=report["busy"],
        build=report["build"],
        problem=report["problem"],
    )
