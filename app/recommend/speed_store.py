"""Speeds that were measured on this machine, by device: kept for a library, a processor and a number of threads."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from specee.app import machine
from specee.app.recommend.machine import DecodingSpeed
from specee.models import local_file

FORMAT = 1
MAX_BYTES = 1 << 20
CPU = "CPU"


class SpeedStore:
    """A JSON file. `threads`: as many as decode."""

    def __init__(self, path: Path, threads: int, build: str) -> None:
        self._path, self._key = path, f"{machine.identity()} | {threads} threads | {build}"
        self._speeds: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            stored = json.loads(local_file.read(path, MAX_BYTES))
            if (stored["format"], stored["key"]) == (FORMAT, self._key):
                self._speeds = {str(device): dict(speed) for device, speed in stored["speeds"].items()}

    def find(self, device: str) -> dict[str, Any] | None:
        """As it was kept; None when it was not, or not as `decoding_speed` reads it."""
        found = self._speeds.get(device)
        return found if decoding_speed(found) is not None else None

    def keep(self, device: str, speed: dict[str, Any]) -> None:
        self._speeds[device] = speed
        content = {"format": FORMAT, "key": self._key, "speeds": self._speeds}
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            local_file.make_folder(self._path.parent)
            part.write_text(json.dumps(content, indent=1), "utf-8")
            part.replace(self._path)
        except OSError:  # the next time it is measured again
            with suppress(OSError):
                part.unlink()


def decoding_speed(found: dict[str, Any] | None) -> DecodingSpeed | None:
    """From JSON; None for what cannot be."""
    try:
        assert found is not None
        rates = {str(kind): float(rate) for kind, rate in found["rates"].items()}
        rows = {int(n): float(times) for n, times in found["rows"].items()}  # JSON has texts as keys
        attention, layer = float(found["attention"]), float(found["layer"])
    except (AssertionError, ValueError, TypeError, LookupError, AttributeError):
        return None
    positive = (*rates.values(), *rows.values(), attention)
    if (
        not rates
        or not all(0.0 < value < 1e18 for value in positive)
        or not 0.0 <= layer < 1.0
        or min(rows, default=1) < 1
    ):
        return None
    return DecodingSpeed(rates, rows, attention, layer)
