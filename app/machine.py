"""What a measurement depends on: the processor, the library's build, our version."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specee.native import cpu, topology


def default_threads(model_bytes: int = 0) -> int:
    """Threads for decoding: one a core of those that are chosen; more of them only wait for memory."""
    return thread_choice(model_bytes).threads


def thread_choice(model_bytes: int = 0) -> topology.Choice:
    """The threads, and why (`native/topology.py`)."""
    usable = cpu.usable_cores()
    if choice := topology.choose(usable, model_bytes):
        return choice
    cores = topology.fast_cores_of_macos() or cpu.physical_cores() or usable
    return topology.Choice(min(usable, cores), "")


def identity() -> str:
    """Short text that changes when measurements from elsewhere no longer hold."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{platform.system()} {platform.machine()} {cpu.processor_name()} x{cores}"


def library_build() -> str:
    """What the native library says of itself; changes with each build that may run at another speed."""
    from specee.native import library

    loaded = library.loaded()
    text = loaded.handle.specee_build_info()
    return f"{loaded.kernels.value};{text.decode('utf-8', 'replace') if text else ''}"


def package_version() -> str:
    """The version, and the commit when it runs from a checkout."""
    try:
        version = importlib.metadata.version("specee-chat")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    checkout = commit()
    return f"{version} ({checkout})" if checkout else version


def devices(endpoints: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What can compute here, and on these workers. Loads the native library. Raises errors with a title."""
    from specee.native import devices as native

    found = [*native.here(), *native.of_workers(endpoints)]
    names = ("name", "label", "kind", "description", "free", "total")
    return [{name: getattr(device, name) for name in names} for device in found]


def commit() -> str | None:
    """The commit of the checkout that it runs from, with -dirty where that was changed; None when it is installed."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=5)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", here.name):  # an installed file in somebody else's checkout
            return None
        return git("describe", "--always", "--dirty", "--abbrev=10") or None
    except (OSError, subprocess.SubprocessError):
        return None


def report(threads: int) -> dict[str, object]:
    """For the head of a table of measurements. Loads the native library."""
    from specee.native import library

    loaded = library.loaded()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu.processor_name(),
        "cores": os.cpu_count() or 1,
        "instruction_sets": [name for name in cpu.MATRIX_FLAGS if name in loaded.record.cpu.split()],
        "amx_cpu": cpu.has_amx(),
        "kernels": loaded.kernels.value,
        "build": library_build(),
        "threads": threads,
        "python": platform.python_version(),
    }
