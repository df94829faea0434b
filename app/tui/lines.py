"""A few lines above the prompt that come, change and go."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static


class Lines(Static):
    """As high as its lines."""

    def __init__(self) -> None:
        super().__init__("", markup=False)

    def show_lines(self, lines: Sequence[Content]) -> None:
        """Shows them."""
        self.update(Content("\n").join(lines))
        self.call_after_refresh(self._check_height)

    def _check_height(self) -> None:
        # Textual (8.2) keeps the height from before an update that comes when a layout is due already: Widget.refresh
        # does not count that update, and the key of its cached measures is that count
        width = self.content_size.width
        if self.display and width:
            height = self.get_content_height(self.size, self.app.size, width)
            if height != self.content_size.height:
                self.refresh(layout=True)
