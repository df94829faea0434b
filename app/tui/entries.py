"""The entries of a conversation on the screen: each knows its lines at a width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.content import Content

from specee.app.formatting import visible
from specee.app.tui.wrapping import NOTHING, Block, Line, wrap

OPEN, FOLDED = "▾ ", "▸ "
BAR = Content.styled("▌ ", "$accent")


class Entry:
    """A part of the conversation: a question, an answer, a notice. `gap`: empty lines below it."""

    gap = 1

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def lay_out(self, width: int, *, plain: bool) -> None:
        """Computes the lines for a width in cells. `plain`: there are no colours."""
        self.lines = [line for block in self.blocks(width, plain) for line in wrap(block, width)]

    def blocks(self, width: int, plain: bool) -> Sequence[Block]:
        raise NotImplementedError

    @property
    def text(self) -> str:
        """What is copied."""
        raise NotImplementedError


LONG = 10_000  # characters of a question that are shown: laying out a megabyte takes seconds, in which no key acts


class QuestionEntry(Entry):
    """What the user wrote, as it is; of a long text the beginning."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    @property
    def text(self) -> str:
        return visible(self._text)

    def blocks(self, width: int, plain: bool) -> Sequence[Block]:
        text = visible(self._text[:LONG]).expandtabs(4)
        blocks = [Block(Content(text), BAR, BAR, "question")]
        if (more := len(self._text) - LONG) > 0:
            blocks.append(
                Block(Content(f"… and {more:,} more characters, which the model gets too"), BAR, BAR, "notice")
            )
        return blocks


class Notice(Entry):
    """A message from the program: hints, marks and errors."""

    def __init__(self, text: str, *, error: bool = False) -> None:
        super().__init__()
        self._text, self._error = visible(text), error

    @property
    def text(self) -> str:
        return self._text

    def blocks(self, width: int, plain: bool) -> Sequence[Block]:
        mark = Content("! ") if self._error else NOTHING
        rest = Content("  ") if self._error else NOTHING
        return [Block(Content(self._text), mark, rest, "error" if self._error else "notice")]


class Help(Entry):
    """Sections of names with what they do, in two columns."""

    NAMES = 15  # cells

    def __init__(self, sections: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__()
        self._sections = sections

    @property
    def text(self) -> str:
        sections = self._sections.items()
        return "\n".join(
            line for title, rows in sections for line in (title, *(f"{name}: {text}" for name, text in rows.items()))
        )

    def blocks(self, width: int, plain: bool) -> Sequence[Block]:
        indent = Content(" " * self.NAMES)
        found = []
        for title, rows in self._sections.items():
            found.append(Block(Content.styled(title, "bold"), style="notice"))
            for name, text in rows.items():
                found.append(Block(Content(text), Content(f"  {name:{self.NAMES - 2}}"), indent, "notice", marked=True))
        return found
