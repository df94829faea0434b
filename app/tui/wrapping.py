"""Lines of text as they stand on the screen: styled text, wrapped to a width."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content

from specee.app.tui.emoji import CLUSTER

_WORD = re.compile(r"\s*\S+\s*")
_CHARACTER = re.compile(f"{CLUSTER.pattern}|.", re.DOTALL)
NOTHING = Content("")
HEADER, CODE, CODE_HEAD = "header", "code", "code-head"
LABELS = {HEADER, CODE_HEAD}
"""Styles of lines that are the screen's own, and never copied."""


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """One line. `joint` is what stood between the line before and this one in the text: that is what copying needs."""

    text: Content
    prefix: Content = NOTHING
    """A mark at the left (bullet, bar, indent): shown, and copied only when `marked`."""
    style: str = ""
    """Name of a component style of the conversation."""
    joint: str = "\n"
    marked: bool = False

    @property
    def plain(self) -> str:
        """What is shown."""
        return self.prefix.plain + self.text.plain

    @property
    def indent(self) -> int:
        """Characters at the left that are not copied."""
        if self.style in LABELS:
            return len(self.plain)
        return 0 if self.marked else len(self.prefix.plain)


@dataclass(frozen=True, slots=True)
class Block:
    """Text that wraps as one: a paragraph, a heading, a line of code. `first` and `rest` stand before its lines."""

    text: Content
    first: Content = NOTHING
    rest: Content = NOTHING
    style: str = ""
    marked: bool = False
    """Whether `first` belongs to what is copied: bullets and numbers do, bars do not."""
    joint: str = "\n"
    """What stands before it in the text."""


def breaks(text: str, width: int) -> list[int]:
    """Where a text without line ends is cut so that no piece is wider than `width` cells; words stay whole if they fit.

    Spaces at the end of a piece may stand beyond the width.
    """
    if cell_len(text) <= width:
        return []
    cuts: list[int] = []
    room = width
    for match in _WORD.finditer(text):
        word = match[0]
        visible = cell_len(word.rstrip())
        if visible > room and match.start() > (cuts[-1] if cuts else 0):
            cuts.append(match.start())
            room = width
        if visible > width:
            at = match.start()
            for character in _CHARACTER.findall(word.rstrip()):
                cells = cell_len(character)
                if cells > room:
                    cuts.append(at)
                    room = width
                room -= cells
                at += len(character)
            visible = 0
        room -= visible + cell_len(word[len(word.rstrip()) :])
    return cuts


def wrap(block: Block, width: int) -> Iterator[Line]:
    """The lines of a block, at most `width` cells wide."""
    prefix, joint = block.first, block.joint
    for paragraph in block.text.split(allow_blank=True) or [NOTHING]:
        room = max(4, width - prefix.cell_length)
        cuts = breaks(paragraph.plain, room)
        for piece in paragraph.divide(cuts) if cuts else [paragraph]:
            yield Line(piece.rstrip(), prefix, block.style, joint, block.marked and prefix is block.first)
            prefix, joint = block.rest, " " if piece.plain[-1:].isspace() else ""
        joint = "\n"
