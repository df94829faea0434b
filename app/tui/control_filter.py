"""What is drawn reaches the terminal without control characters, whichever widget draws it.

Texts of the conversation show them (`formatting.visible`); this is for all others, like a chat's title at the side.
"""

from __future__ import annotations

import re

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from specee.app.formatting import CONTROL

_LINE_CONTROL = re.compile(f"[\t\n]|{CONTROL.pattern}")


class ControlFilter(LineFilter):
    """Drops them: they have no width on the screen."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [Segment(_LINE_CONTROL.sub("", text), style, control) for text, style, control in segments]
