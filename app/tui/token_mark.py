"""The token that is marked in the last answer."""

from __future__ import annotations

from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.token_places import NOWHERE, offsets


class TokenMark:
    """Some characters of an answer, and where its lines show them."""

    def __init__(self) -> None:
        self.answer: AnswerEntry | None = None
        self._span = (0, 0)
        self.lines: dict[int, tuple[int, int]] = {}
        """By line of the answer: the characters of the line, from and up to before."""

    def set(self, answer: AnswerEntry | None, span: tuple[int, int] | None) -> bool:
        """Marks these characters of an answer's text, or nothing; returns whether that changes anything."""
        before = self.answer
        self.answer, self._span = (answer, span) if span is not None else (None, (0, 0))
        self.find()
        return self.answer is not None or before is not None

    def find(self) -> None:
        """The answer has other lines now."""
        self.lines = {}
        if self.answer is None:
            return
        start, end = self._span
        for number, row in enumerate(offsets(self.answer.lines, self.answer.text)):
            within = [at for at, offset in enumerate(row) if start <= offset < end]
            if within:
                indent = len(self.answer.lines[number].prefix.plain)
                self.lines[number] = indent + within[0], indent + within[-1] + 1


def offset_at(answer: AnswerEntry, line: int, x: int) -> int | None:
    """Where the character `x` of a line stands in the answer's text; None where it is none of that."""
    if line >= len(answer.lines):
        return None
    row = offsets(answer.lines[: line + 1], answer.text)[line]
    at = x - len(answer.lines[line].prefix.plain)
    return row[at] if 0 <= at < len(row) and row[at] != NOWHERE else None
