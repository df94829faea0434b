"""A terminal that cannot show Unicode gets ASCII, whichever widget draws: borders, bars, arrows, marks and bullets.

All of it is here, where lines are on their way to the terminal: each character is replaced in its own width.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Mapping

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from specee.app.cli.substitutes import in_ascii
from specee.app.settings import Ascii
from specee.app.tui.emoji import CLUSTER

_BOX = range(0x2500, 0x2580)
_BOX_LINES = (
    dict.fromkeys("─━┄┅┈┉╌╍═╴╶╸╺╼╾", "-")
    | dict.fromkeys("│┃┆┇┊┋╎╏║╵╷╹╻╽╿", "|")
    | dict(zip("\u2571\u2572\u2573", "/\\X", strict=True))  # diagonals
)
GLYPHS: Mapping[str, str] = {
    **{chr(code): "+" for code in _BOX},
    **_BOX_LINES,
    **dict(zip("▁▂▃▄▅▆▇█", "_-~=+*%#", strict=True)),  # the bars of charts; of them ▁ and ▔ are borders, too
    **dict.fromkeys("▏▎▍▌▋▊▐▕", "|"),
    **dict.fromkeys("▔▀", "-"),
    **dict.fromkeys("▖▗▘▙▚▛▜▝▞▟", "+"),
    **dict(zip("▉░▒▓", "#.:%", strict=True)),
    **dict.fromkeys("▲▴↑", "^"),
    **dict.fromkeys("▼▾↓", "v"),
    **dict.fromkeys("▶▸→", ">"),
    **dict.fromkeys("◀◂←", "<"),
    **dict.fromkeys("•●★⭑", "*"),
    **dict.fromkeys("◦⭘", "o"),
    "▪": "+",
    "·": "-",
    "…": ".",
    "“": '"',
    "”": '"',
    "⏎": "$",  # the end of a line, as `cat -A` has it
    "🔎": "> ",  # Textual's palette
}
"""What the screen draws with. In the text of an answer they are replaced, too: nothing else looks like them."""
CONSOLE_FONT = "cp437"
"""The line-drawing characters that the fonts of Linux's text console have."""


class AsciiFilter(LineFilter):
    """`encoding` None: the terminal has the characters of all texts. `glyphs`: the encoding whose glyphs are kept."""

    def __init__(self, encoding: str | None = None, glyphs: str = "ascii") -> None:
        super().__init__()
        self._encoding = encoding
        ours = {glyph: plain for glyph, plain in GLYPHS.items() if not _has(glyphs, glyph)}
        self._table = _Table(ours, encoding)

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(segment.text.isascii() for segment in segments):
            return segments
        return [Segment(self._shown(text), style, control) for text, style, control in segments]

    def _shown(self, text: str) -> str:
        if text.isascii():
            return text
        if self._encoding is not None:  # of several characters, whose widths do not add up
            text = CLUSTER.sub(lambda found: "?" * cell_len(found[0]), text)
        return text.translate(self._table)


class _Table(dict[int, str]):
    """For `str.translate`: what stands for a character, found out when it is first drawn."""

    def __init__(self, glyphs: Mapping[str, str], encoding: str | None) -> None:
        super().__init__({ord(glyph): plain for glyph, plain in glyphs.items()})
        self._encoding = encoding

    def __missing__(self, code: int) -> str:
        character = chr(code)
        known = self._encoding is None or _has(self._encoding, character)
        self[code] = character if known else _in_width(character)
        return self[code]


def _in_width(character: str) -> str:
    """ASCII of the same width: what people write for it, if there is room for that."""
    width, plain = cell_len(character), in_ascii(character)
    return plain.ljust(width) if plain not in ("", "?") and len(plain) <= width else "?" * width


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def choose(wanted: Ascii, environment: Mapping[str, str] = os.environ) -> AsciiFilter | None:
    """What the terminal needs; None where it shows everything, or where the user says so."""
    encoding = _encoding(environment)
    if wanted == "off":
        return None
    if wanted == "on" or encoding is not None:
        return AsciiFilter(encoding)
    return AsciiFilter(glyphs=CONSOLE_FONT) if environment.get("TERM") == "linux" else None


def _encoding(environment: Mapping[str, str]) -> str | None:
    """The terminal's, where that is not Unicode. Python writes UTF-8 in the locale C, which says nothing of it."""
    locale = next(filter(None, map(environment.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "")
    if locale in ("C", "POSIX"):
        return "ascii"
    try:
        name = codecs.lookup(getattr(sys.__stderr__, "encoding", None) or "utf-8").name  # where Textual writes
    except LookupError:
        return "ascii"
    return None if name.startswith("utf") else name
