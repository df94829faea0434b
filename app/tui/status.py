"""The status line."""

from __future__ import annotations

from textual.widgets import Static


class Status(Static):
    """Two lines of figures."""

    DEFAULT_CSS = """
    Status { height: 2; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)
        self._lines = ("", "")

    def show(self, lines: tuple[str, str]) -> None:
        if lines != self._lines:
            self._lines = lines
            self.update("\n".join(lines), layout=False)
