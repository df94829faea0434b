"""Emoji of several characters, which a terminal draws as one or one after the other, each in a width of its own choice.

Textual counts on one; where the terminal thinks otherwise, all that follows in the line, and the border at its end,
would be shifted. So the cursor is told where to go on behind each of them.
"""

from __future__ import annotations

import re

from rich.cells import cell_len

_BASE = "[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff]"
_MODIFIER = "[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"  # variants, skin tones, tags of flags
_JOINED = f"\u200d{_BASE}{_MODIFIER}*"
CLUSTER = re.compile(
    f"[\U0001f1e6-\U0001f1ff]{{2}}|[#*0-9]\ufe0f?\u20e3|{_BASE}(?:{_MODIFIER}+(?:{_JOINED})*|(?:{_JOINED})+)"
)
SAVE, RESTORE = "\x1b7", "\x1b8"  # the cursor


def anchored(output: str) -> str:
    """What is written to the terminal, with the cursor's place set behind each emoji of several characters."""
    return output if output.isascii() else CLUSTER.sub(_anchor, output)


def _anchor(match: re.Match[str]) -> str:
    # blanks first: a terminal that draws it narrower would leave what stood there
    width = cell_len(match[0])
    return f"{SAVE}{' ' * width}{RESTORE}{match[0]}{RESTORE}\x1b[{width}C"
