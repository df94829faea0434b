"""A table of styled cells as lines that fit a width."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from specee.app.tui.wrapping import NOTHING, Block, wrap

GAP = " │ "
MIN_WIDTH = 4  # cells a column


def draw(rows: Sequence[Sequence[Content]], width: int) -> list[Content]:
    """The head, a rule, and the rows; cells that are too wide wrap."""
    if not rows or not rows[0]:
        return []
    count = len(rows[0])
    natural = [max([MIN_WIDTH, *(row[c].cell_length for row in rows if c < len(row))]) for c in range(count)]
    widths = fit(natural, width - len(GAP) * (count - 1))
    lines: list[Content] = []
    for number, row in enumerate(rows):
        cells = [cell.stylize("bold") if number == 0 else cell for cell in row]
        cells += [NOTHING] * (count - len(cells))
        lines += _row(cells, widths)
        if number == 0:
            lines.append(Content.styled("─┼─".join("─" * wide for wide in widths), "$text-muted"))
    return lines


def fit(natural: Sequence[int], room: int) -> list[int]:
    """Widths of columns: the narrow ones get what they want, the wide ones share what is left."""
    widths = [0] * len(natural)
    by_width = sorted(range(len(natural)), key=natural.__getitem__)
    for done, column in enumerate(by_width):
        widths[column] = max(MIN_WIDTH, min(natural[column], room // (len(natural) - done)))
        room -= widths[column]
    return widths


def _row(cells: Sequence[Content], widths: Sequence[int]) -> list[Content]:
    columns = [[line.text for line in wrap(Block(cell), wide)] for cell, wide in zip(cells, widths, strict=True)]
    lines = []
    for height in range(max(len(column) for column in columns)):
        parts = [column[height] if height < len(column) else NOTHING for column in columns]
        padded = [part.pad_right(max(0, wide - part.cell_length)) for part, wide in zip(parts, widths, strict=True)]
        lines.append(Content.styled(GAP, "$text-muted").join(padded).rstrip())
    return lines
