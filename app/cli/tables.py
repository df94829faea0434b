"""Tables on the terminal, and in files: there each row is one line, however long."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from specee.app.formatting import visible

_UNLIMITED = 1 << 16  # columns of a file


@dataclass(frozen=True)
class Column:
    """`width` is the least one. A column that is not `rigid` gives way on a terminal that is too narrow."""

    title: str = ""
    right: bool = False
    width: int = 0
    rigid: bool = True


def table(columns: Iterable[Column], rows: Iterable[Iterable[str]]) -> str:
    """The rows as text, without a line end; titles stand above them unless all are empty."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = list(columns)
    drawn = Table(box=None, show_header=any(c.title for c in columns), pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        drawn.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            min_width=column.width,
            no_wrap=column.rigid,
            overflow="fold",
        )
    for row in rows:
        drawn.add_row(*(Text(visible(cell)) for cell in row))
    file = io.StringIO()
    narrow = sys.stdout.isatty() and not all(column.rigid for column in columns)
    width = shutil.get_terminal_size().columns if narrow else _UNLIMITED
    Console(file=file, width=width, color_system=None, highlight=False, markup=False, emoji=False).print(drawn)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def markdown(columns: Iterable[Column], rows: Iterable[Iterable[str]]) -> str:
    """The same as a table of GitHub's Markdown."""
    columns = list(columns)
    lines = [[c.title for c in columns], ["---:" if c.right else "---" for c in columns], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def pairs(rows: Iterable[tuple[str, str]], width: int = 0) -> str:
    """Names, `width` wide at least, and what belongs to them."""
    return table([Column(width=width), Column()], rows)
