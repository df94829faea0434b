"""How fast this machine decodes, whatever the model: measured once, then kept; again where it was busy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from specee.app import machine, paths
from specee.app.options import LoadOptions
from specee.app.recommend.speed_store import CPU, SpeedStore


def run_measure_speed(load: LoadOptions) -> dict[str, Any]:
    """What app/recommend/this_machine.py reads: build, speed, busy, gpus, and why something was not measured."""
    from specee.native import decoding_speed
    from specee.native.errors import NativeError

    threads, build = load.threads or machine.default_threads(), machine.library_build()
    store = SpeedStore(paths.find(load.data_dir).speed, threads, build)
    problem, busy = None, False

    def speed(name: str, device: Any) -> dict[str, Any] | None:
        nonlocal problem, busy
        kept = store.find(name)
        if kept is not None and not kept.get("busy"):
            return kept
        try:
            found = asdict(decoding_speed.measure(device, threads))
        except NativeError as error:
            problem = f"{error.title}: {error.message}"
            return None
        busy = busy or found["busy"]
        store.keep(name, found)
        return found

    gpus = []
    for device in decoding_speed.gpus():
        name, free, total = decoding_speed.describe(device)
        gpus.append({"name": name, "free_bytes": free, "total_bytes": total, "speed": speed(name, device)})
    return {"build": build, "speed": speed(CPU, None), "busy": busy, "gpus": gpus, "problem": problem}
