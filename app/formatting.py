"""Texts, sizes, times and transfers as people read them, and JSON as programs do. Nothing here prints."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specee.models.transfer import TransferProgress

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could steer a terminal, change the direction of what follows, or not be written at all; not tabs, line ends."""
_PICTURES = 0x2400  # where Unicode has pictures of the control characters
_DELETE, _UNKNOWN = 0x7F, "\ufffd"
_NOT_IN_JSON = re.compile(f"{CONTROL.pattern}|[\u2028\u2029]")


def visible(text: str) -> str:
    """A text that is not ours, for a terminal or a file to read: its control characters become pictures of them."""
    if text.isprintable():
        return text
    return CONTROL.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < ord(" "):
        return chr(_PICTURES + code)
    return "\u2421" if code == _DELETE else _UNKNOWN


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
    """One line of JSON; control characters are escaped."""
    text = json.dumps(content, ensure_ascii=False)
    return _NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
