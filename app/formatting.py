"""Texts, sizes, times and transfers as people read them, and JSON as programs do. Nothing here prints."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specee.models.transfer import TransferProgress

# Scripts that join their letters, and what emoji are made of; without what is replaced below.
_JOINED = "\u0600-\u061b\u061d-\u08ff\u0900-\u0dff\u0e00-\u109f\u1780-\u17b3\u17b6-\u17ff\u1800-\u180a\u1810-\u18af"
_LEFTWARD = "\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"  # Hebrew, Arabic and their kin
_EMOJI = "\u00a9\u00ae\u203c-\u205f\u2070-\u3163\u3165-\u3299\ufe0f\U0001f000-\U0001faff"
_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_TAGS = "\U000e0000-\U000e007f"  # of the flags of England, Scotland and Wales, and of hidden text
_FLAG = "\U000e0067\U000e0062(?:{})\U000e007f(?![{}])".format(
    "|".join("".join(chr(0xE0000 + ord(letter)) for letter in region) for region in ("eng", "sct", "wls")), _TAGS
)
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
    "|[\u202a-\u202e\u2066-\u2069]"
    f"|(?<![{_LEFTWARD}])[\u061c\u200e\u200f](?![{_LEFTWARD}])"
    "|[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]"
    "|[\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0080-\U000e00ff\U000e01f0-\U000e0fff]"
    f"|(?<![{_IDEOGRAPHS}])[\U000e0100-\U000e01ef]"
    f"|(?<![\U0001f3f4{_TAGS}])[{_TAGS}]+|(?<=\U0001f3f4)(?!{_FLAG})[{_TAGS}]+"
    f"|(?<![{_JOINED}{_EMOJI}])[\u200c\u200d]|[\u200c\u200d](?![{_JOINED}{_EMOJI}])"
)
"""What could steer a terminal, change the direction of what follows, hide or not be written at all; not tabs, line
ends. Joiners, variants and tags stay where they belong to what is seen, and marks of direction next to letters that are
written leftward."""
LONGEST_LABEL = 120  # characters
_PICTURES = 0x2400  # where Unicode has pictures of the control characters
_DELETE, _UNKNOWN = 0x7F, "\ufffd"


def visible(text: str) -> str:
    """A text that is not ours, for a terminal or a file to read: its control characters become pictures of them."""
    if text.isascii() and text.isprintable():
        return text
    return CONTROL.sub(_picture, text.replace("\r\n", "\n"))


def label(text: str) -> str:
    """A text that is not ours, as one short line of a table."""
    line = " ".join(text[: 4 * LONGEST_LABEL].split())
    return line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1] + "\u2026"


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0][0])
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


def moment(seconds: float, now: float) -> str:
    """When something was, in local time: 14:32 of today, Mon 23 Nov 14:32 of this year, else with the year."""
    then, today = time.localtime(seconds), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%a %d %b %H:%M" if then.tm_year == today.tm_year else "%d %b %Y", then)


def thought_title(seconds: float) -> str:
    """Of what a model thought: Thought for 12 s; without the time where it is not known."""
    return f"Thought for {span(seconds)}" if seconds > 0 else "Thought"


def span(seconds: float) -> str:
    """A time as it is said: 0.4 s, 12 s, 3 min 5 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def transfer(progress: TransferProgress) -> str:
    """How far a transfer has come: 45%  44.3 MB of 98.4 MB  3.1 MB/s  0:17 left."""
    parts = [f"{progress.fraction:4.0%}", f"{size(progress.done)} of {size(progress.total)}"]
    if progress.rate is not None and progress.eta is not None:
        parts += [f"{size(progress.rate)}/s", f"{duration(progress.eta)} left"]
    return "  ".join(parts)


def to_json(content: object, *, ascii_only: bool = False) -> str:
    """One line of JSON; control characters are escaped."""
    text = json.dumps(content, ensure_ascii=ascii_only)
    return CONTROL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
