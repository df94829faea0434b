"""What was measured on this machine for each model, and is remembered: times of steps, threads for a single row."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specee.app import machine
from specee.app.options import DEFAULT_KV_TYPE
from specee.models import local_file

if TYPE_CHECKING:  # it loads numpy
    from specee.app.engine.backend import Backend

FORMAT = 6
MAX_BYTES = 16 << 20
MOST_OVER_STOCK = 4.0
"""Times as fast as the unpatched library is more than dense decoding ever was; where it is, that had too few cores."""


@dataclass
class Drafting:
    """What drafting costs and brings for a model. `refusal`: why tokens cannot be drafted, None if they can."""

    seconds: dict[int, float]
    """Of a step of n rows, by n."""
    refusal: str | None = None
    speedup: float | None = None
    """Over dense decoding, by the answers so far."""

    @property
    def dense_rate(self) -> float | None:
        """Tokens per second of dense decoding."""
        return 1.0 / self.seconds[1] if 1 in self.seconds else None

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Drafting:
        """From JSON. Raises ValueError, TypeError or KeyError for what cannot be."""
        seconds = {int(n): float(t) for n, t in stored["seconds"].items()}
        refusal, speedup = stored["refusal"], stored["speedup"]
        if not all(n >= 1 and 0.0 < t < 1e6 for n, t in seconds.items()) or not (seconds or refusal):
            raise ValueError("no times of steps")
        return cls(seconds, refusal and str(refusal), speedup and float(speedup))


class Measurements:
    """Kept in a JSON file (None: for this process only). `build`: the library, whose speed was measured."""

    def __init__(self, path: Path | None = None, build: str = "") -> None:
        self._path, self._build = path, build

    @property
    def drafting(self) -> dict[str, Drafting]:
        """By `key`."""
        return self._stored[0]

    @property
    def threads(self) -> dict[str, int]:
        """The fewest threads that a single row is as fast with as with all, by `key`."""
        return self._stored[1]

    @property
    def dense_rates(self) -> dict[str, float]:
        """Tokens per second that answers without drafts were written at, by `key`."""
        return self._stored[2]

    @property
    def stock_rates(self) -> dict[str, float]:
        """Tokens per second of the unpatched library, by `key`: what the last benchmark with it found."""
        return self._stored[3]

    def key(self, backend: Backend) -> str:
        """The model, the machine and the build."""
        where = f"{backend.info.threads} threads"
        if backend.info.places:
            where += f", {backend.info.places}"
        if backend.info.kv_type != DEFAULT_KV_TYPE:
            where += f", keys and values in {backend.info.kv_type}"
        return f"{backend.sha256} | {machine.identity()} | {where} | {self._build}"

    def keep_stock_rate(self, backend: Backend, stock: float | None, dense: float | None) -> None:
        """What a benchmark found, in turns with dense decoding: chats compare themselves with it. Not where other
        programs held it up so much that it says nothing."""
        if stock and dense and stock * MOST_OVER_STOCK > dense:
            self.stock_rates[self.key(backend)] = stock
            self.save()

    def save(self) -> None:
        """Keeps what is known now."""
        if self._path is None:
            return
        drafting = {key: asdict(known) for key, known in self.drafting.items()}
        rates = {"dense_rates": self.dense_rates, "stock_rates": self.stock_rates}
        content = {"format": FORMAT, "drafting": drafting, "threads": self.threads, **rates}
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            local_file.make_folder(self._path.parent)
            part.write_text(json.dumps(content, indent=1), "utf-8")
            part.replace(self._path)
        except OSError:  # the next start measures again
            with suppress(OSError):
                part.unlink()

    @cached_property
    def _stored(self) -> tuple[dict[str, Drafting], dict[str, int], dict[str, float], dict[str, float]]:
        drafting: dict[str, Drafting] = {}
        threads: dict[str, int] = {}
        rates: dict[str, float] = {}
        stock: dict[str, float] = {}
        try:
            stored = json.loads(local_file.read(self._path, MAX_BYTES)) if self._path else {}
            if stored.get("format") == FORMAT:
                drafting = {key: Drafting.read(known) for key, known in stored["drafting"].items()}
                threads = {k: int(n) for k, n in stored["threads"].items() if int(n) > 0}
                rates, stock = (_rates(stored.get(name, {})) for name in ("dense_rates", "stock_rates"))
        except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
            pass  # a damaged file is measured again
        return drafting, threads, rates, stock


def _rates(stored: dict[str, Any]) -> dict[str, float]:
    found = {key: float(rate) for key, rate in stored.items()}
    return {key: rate for key, rate in found.items() if 0.0 < rate < 1e6}
