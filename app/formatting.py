"""Sizes, times and transfers as people read them, and JSON as programs do. Nothing here prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specee.models.transfer import TransferProgress


def size(n_bytes: float) -> str:
    """Bytes in decimal units, as hubs and disks have them: 98.4 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def transfer(progress: TransferProgress) -> str:
    """How far a transfer has come: 45%  44.3 MB of 98.4 MB  3.1 MB/s  0:17 left."""
    parts = [f"{progress.fraction:4.0%}", f"{size(progress.done)} of {size(progress.total)}"]
    if progress.rate is not None and progress.eta is not None:
        parts += [f"{size(progress.rate)}/s", f"{duration(progress.eta)} left"]
    return "  ".join(parts)


def to_json(content: object) -> str:
    """One line of JSON."""
    return json.dumps(content, ensure_ascii=False)
