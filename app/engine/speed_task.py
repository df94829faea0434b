"""How fast this machine decodes, whatever the model: measured once for a library and a number of threads, then kept."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from specee.app import machine, paths
from specee.app.options import LoadOptions
from specee.models import local_file

FORMAT = 2
MAX_BYTES = 1 << 20
CPU = "CPU"


def run_measure_speed(load: LoadOptions) -> dict[str, Any]:
    """What app/recommend/this_machine.py reads: threads, build, speed, busy, gpus, and why nothing was measured."""
    from specee.native import decoding_speed
    from specee.native.errors import NativeError

    threads = load.threads or machine.default_threads()
    store = _Store(
        paths.find(load.data_dir).speed, f"{machine.identity()} | {threads} threads | {machine.library_build()}"
    )
    problem, busy = None, False

    def speed(name: str, device: Any) -> dict[str, Any] | None:
        nonlocal problem, busy
        if name in store.speeds:
            return store.speeds[name]
        try:
            found = asdict(decoding_speed.measure(device, threads))
        except NativeError as error:
            problem = str(error)
            return None
        if found["busy"]:  # measured again the next time
            busy = True
        else:
            store.keep(name, found)
        return found

    gpus = []
    for device in decoding_speed.gpus():
        name, free, total = decoding_speed.describe(device)
        gpus.append({"name": name, "free_bytes": free, "total_bytes": total, "speed": speed(name, device)})
    return {
        "threads": threads,
        "build": machine.library_build(),
        "speed": speed(CPU, None),
        "busy": busy,
        "gpus": gpus,
        "problem": problem,
    }


class _Store:
    """By device; `key`: what they hold for."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self.speeds: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            stored = json.loads(local_file.read(path, MAX_BYTES))
            if (stored["format"], stored["key"]) == (FORMAT, key):
                self.speeds = dict(stored["speeds"])

    def keep(self, device: str, speed: dict[str, Any]) -> None:
        self.speeds[device] = speed
        content = {"format": FORMAT, "key": self._key, "speeds": self.speeds}
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            local_file.make_folder(self._path.parent)
            part.write_text(json.dumps(content, indent=1), "utf-8")
            part.replace(self._path)
        except OSError:  # the next time it is measured again
            with suppress(OSError):
                part.unlink()
