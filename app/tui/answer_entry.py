"""An answer that may grow. Text that cannot change any more is never parsed again, however long the answer becomes."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import accumulate

from specee.app.formatting import visible
from specee.app.tui import markdown
from specee.app.tui.entries import FOLDED, OPEN, Entry
from specee.app.tui.markdown import code_head
from specee.app.tui.wrapping import CODE, CODE_HEAD, NOTHING, Block, Line, wrap

LONG = 32  # lines of one paragraph: from there on it is cut,
TAIL = 12  # and so many lines of it stay open
TRIES = 4  # places tried for the cut
_READ_AS_A_WHOLE = re.compile(r"^ {0,3}\[[^\]\n]+\]:|\$\$|\\\[", re.MULTILINE)
"""Links that are defined elsewhere, and formulas in lines of their own."""
LONG_CODE = 30  # lines; a block of more can be folded,
FOLDED_CODE = 8  # and so many stay then


class AnswerEntry(Entry):
    """What the model generated for one question, as Markdown.

    `lines` are the final lines, then those that may still change: the last block, or the last item of a list, or the
    end of a long paragraph or code block.
    """

    def __init__(self, source: str = "", *, is_over: bool = False) -> None:
        """`is_over`: it does not grow, so that its code can be folded; long code is."""
        super().__init__()
        self._source = visible(source)
        self._is_over = is_over
        self._unfolded: set[int] = (
            set()
        )  # long blocks of code that are shown whole; of an answer that has come, all are
        self._folds = is_over
        self._width, self._plain = 0, False
        self._restart()

    @property
    def text(self) -> str:
        return self._source

    def lay_out(self, width: int, *, plain: bool) -> None:
        self._width, self._plain = width, plain
        self._restart()
        self._read()
        if self._is_over:
            self._fold_code()

    def append(self, text: str) -> int:
        """Adds text; returns the index of the first line that may have changed."""
        self._source += visible(text)
        first_changed = self._n_final
        self._read()
        return first_changed

    def finish(self, source: str) -> bool:
        """Sets the whole text at the end; returns whether that changes lines: long code gets a mark that folds it."""
        source = visible(source)
        self._is_over = True
        if source == self._source and not _READ_AS_A_WHOLE.search(source):
            before = self.lines
            self._fold_code()
            return self.lines is not before
        self._source = source
        self.lay_out(self._width, plain=self._plain)
        return True

    def _restart(self) -> None:
        self.lines = []
        self._n_final = 0  # lines that cannot change any more
        self._at = 0  # where the rest begins in the text
        self._open_fence = ""  # the first line of the code block that the rest goes on with
        self._gap, self._joint = False, "\n"  # what stands before the rest
        self._long = LONG

    def _read(self) -> None:
        """Computes the lines of the rest, and finalizes those that can be."""
        if not self._width:
            return
        del self.lines[self._n_final :]
        rest = self._open_fence + self._source[self._at :]
        units = markdown.read(rest, self._width, plain=self._plain)
        before = self._at - len(self._open_fence)
        starts = [0, *accumulate(len(line) + 1 for line in rest.split("\n"))]
        for number, unit in enumerate(units):
            start = starts[unit.line]
            if number:
                self._finalize(len(self.lines), before + start, gap=unit.gap)
            if self._gap:
                self.lines.append(Line(NOTHING))
            goes_on = not number and bool(self._open_fence)
            ends = self._add(_without_head(unit.blocks) if goes_on else unit.blocks)
            if number == len(units) - 1:
                self._cut_code(rest[start:], ends, n_heads=0 if goes_on else 1)
                if len(ends) == 1 and ends[0] - self._n_final > self._long:
                    self._cut_paragraph(rest[start:], unit.blocks[0])

    def _finalize(self, lines: int, at: int, *, gap: bool = False, joint: str = "\n", open_fence: str = "") -> None:
        self._n_final, self._at, self._gap, self._joint, self._open_fence = lines, at, gap, joint, open_fence
        self._long = LONG

    def _add(self, blocks: tuple[Block, ...]) -> list[int]:
        """Appends the lines of blocks; returns how many lines there are after each."""
        ends = []
        for number, block in enumerate(blocks):
            first, *others = wrap(block, self._width)
            if number == 0 and self._joint != "\n":
                first = Line(first.text, first.prefix, first.style, self._joint, first.marked)
            self.lines += [first, *others]
            ends.append(len(self.lines))
        return ends

    def _cut_code(self, source: str, ends: list[int], n_heads: int) -> None:
        """Finalizes the beginning of a code block that is still open; `ends` are those of its head, if it has one here,
        and of its lines."""
        if not markdown.is_open_fence(source):
            return
        open_fence, _, code = source.partition("\n")
        *done, _ = markdown.code_chunks(code.split("\n"))
        count = sum(map(len, done))
        if 0 < count < len(ends) - n_heads:
            length = sum(len(line) + 1 for chunk in done for line in chunk)
            self._finalize(
                ends[count + n_heads - 1], len(self._source) - len(code) + length, open_fence=open_fence + "\n"
            )

    def _cut_paragraph(self, source: str, block: Block) -> None:
        """Finalizes the beginning of a long paragraph, at the begin of a line, if it reads the same in two parts."""
        shown = block.text.plain
        lines = self.lines[self._n_final + self._gap :]
        for count in range(len(lines) - TAIL, len(lines) - TAIL - TRIES, -1):
            at = 0
            for line in lines[:count]:
                at += len(line.text.plain)
                at += len(shown[at:]) - len(shown[at:].lstrip())
            cut = _align(source, shown, at)
            if self._shown(source[:cut]) == shown[:at].rstrip() and self._shown(source[cut:]) == shown[at:]:
                n_final = self._n_final + self._gap + count
                self._finalize(n_final, len(self._source) - len(source) + cut, joint=lines[count].joint)
                return
        self._long = len(lines) + TAIL

    def _shown(self, source: str) -> str | None:
        """The plain text of one paragraph; None when it is something else."""
        units = markdown.read(source, self._width, plain=self._plain)
        if len(units) != 1 or len(units[0].blocks) != 1 or units[0].blocks[0].marked or units[0].blocks[0].first:
            return None
        return units[0].blocks[0].text.plain

    # ---- folding code ----------------------------------------------------------------------------------------------

    def code_block_at(self, line: int) -> int:
        """Which block of code the line with this index belongs to; from 0."""
        return sum(each.style == CODE_HEAD for each in self.lines[: line + 1]) - 1

    def fold(self, block: int) -> None:
        """Folds a block of code, or shows all of it."""
        if not self._folds:
            self._folds, self._unfolded = True, set(range(len(self.lines)))
        self._unfolded ^= {block}
        self.lay_out(self._width, plain=self._plain)

    def fold_all(self) -> None:
        """Folds all long blocks of code, or shows all of them."""
        n_blocks = sum(line.style == CODE_HEAD for line in self.lines)
        everything = set(range(n_blocks))
        self._unfolded = set() if not self._folds or self._unfolded >= everything else everything
        self._folds = True
        self.lay_out(self._width, plain=self._plain)

    def _fold_code(self) -> None:
        """Long blocks of code get a mark, and those that are folded end after some lines."""
        heads = [at for at, line in enumerate(self.lines) if line.style == CODE_HEAD]
        lines: list[Line] = []
        begun = 0
        for block, head in enumerate(heads):
            end = head + 1
            while end < len(self.lines) and self.lines[end].style == CODE:
                end += 1
            if end - head - 1 <= LONG_CODE:
                continue
            folded = self._folds and block not in self._unfolded
            lines += [*self.lines[begun:head], _marked_head(self.lines[head], end - head - 1, folded)]
            begun = head + 1
            if folded:
                lines += self.lines[begun : begun + FOLDED_CODE]
                begun = end
        if begun:
            self.lines = [*lines, *self.lines[begun:]]


def _marked_head(head: Line, n_lines: int, folded: bool) -> Line:
    """The line above long code, with a mark that folds it."""
    language = head.text.plain.removesuffix("copy").strip() or "code"
    text = code_head(language, FOLDED if folded else OPEN, f", {n_lines} lines")
    return replace(head, text=text)


def _without_head(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """The lines of a code block that goes on."""
    _, *lines = blocks
    return (replace(lines[0], joint="\n"), *lines[1:]) if lines else ()


def _align(source: str, shown: str, at: int) -> int:
    """Where the character `at` of what is shown stands in the source, which has some more (marks of emphasis)."""
    place = 0
    for character in shown[:at]:
        place = max(place, source.find(character, place)) + 1
    return place
