"""Colours for Markdown that is still being written: its text stays as it comes, every character of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

PLAIN, BOLD, CODE = "\x1b[0m", "\x1b[1m", "\x1b[36m"
_UNDECIDED = re.compile(r" {0,3}(#{1,6}|`{1,}|~{1,})?")  # the beginning of a line that may become a heading or a fence
_HEADING = re.compile(r" {0,3}#{1,6} ")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class MarkdownColours:
    """Cuts a growing text into pieces with a style each. What cannot be decided yet waits, a few characters at most."""

    def __init__(self) -> None:
        self._held = ""
        self._line_begins = True
        self._line_style: str | None = None  # of a heading, or a fence
        self._fence: str | None = None  # what the block of code began with
        self._bold = self._code = False

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """(style, text) pieces of what has come."""
        self._held += text
        while self._held:
            if self._line_begins and not self._begin_line():
                return
            line, end, rest = self._held.partition("\n")
            if self._style_of_line is not None:
                yield self._style_of_line, line
            else:
                if not end and line.endswith("*") and not line.endswith("**"):  # one more may come
                    line, rest = line[:-1], "*"
                yield from self._inline(line)
            self._held = rest
            if not end:
                return
            yield PLAIN, "\n"
            self._line_begins, self._line_style, self._bold, self._code = True, None, False, False

    def end(self) -> Iterator[tuple[str, str]]:
        """The rest."""
        held, self._held = self._held, ""
        if held:
            yield self._style_of_line or PLAIN, held

    @property
    def _style_of_line(self) -> str | None:
        return self._line_style or (CODE if self._fence is not None else None)

    def _begin_line(self) -> bool:
        """Finds out what the line is; False while that is open."""
        begun = _UNDECIDED.fullmatch(self._held)
        if begun is not None:
            return False
        self._line_begins = False
        fence = _FENCE.match(self._held)
        if self._fence is not None:
            if (
                fence is not None
                and fence[1].startswith(self._fence)
                and not self._held[fence.end() :].split("\n")[0].strip()
            ):
                self._fence, self._line_style = None, CODE
        elif fence is not None:
            self._fence = fence[1]
        elif _HEADING.match(self._held):
            self._line_style = BOLD
        return True

    def _inline(self, line: str) -> Iterator[tuple[str, str]]:
        for piece in re.split(r"(`+|\*\*)", line):
            if not piece:
                continue
            ends = False
            if piece[0] == "`":
                ends, self._code = self._code, True
            elif piece == "**" and not self._code:
                ends, self._bold = self._bold, True
            yield (CODE if self._code else BOLD if self._bold else PLAIN), piece
            if ends:
                self._code, self._bold = (False, self._bold) if piece[0] == "`" else (self._code, False)
