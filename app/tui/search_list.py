"""A search field above a list of rows with headings: what the lists of models and of saved texts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from textual import events
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from specee.app.tui.key_line import key_line

Row = TypeVar("Row")
LEAST_WIDTH = 20


class SearchList(Screen[None], Generic[Row]):
    """The field has the focus, so that letters search; keys that a subclass binds move in the list and choose."""

    DEFAULT_CSS = """
    SearchList { background: $background; }
    SearchList Input { border: none; height: 1; padding: 0 1; background: $boost; }
    SearchList OptionList, SearchList OptionList:focus { width: 1fr; height: 1fr; border: none; padding: 0 1;
        text-wrap: nowrap; background: transparent; scrollbar-size-vertical: 1; }
    SearchList #keys { height: auto; padding: 0 1; color: $text-muted; }
    """

    def __init__(self, placeholder: str, options: OptionList) -> None:
        """`placeholder`: what can be searched for."""
        super().__init__()
        self._search, self._list = Input(placeholder=placeholder, compact=True), options
        self._keys = Static(key_line(self.BINDINGS), id="keys")
        self._rows: list[Row | None] = []  # by line; None: a heading, or another line that cannot be chosen
        self._drawn: list[Content] = []

    def on_mount(self) -> None:
        self._search.focus()

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._show_rows)

    @property
    def _row(self) -> Row | None:
        """The one that is highlighted."""
        at = self._list.highlighted
        return self._rows[at] if at is not None and at < len(self._rows) else None

    @property
    def _width(self) -> int:
        """Columns for a line."""
        return max(LEAST_WIDTH, self._list.scrollable_content_region.width - 2)

    def _show_rows(self) -> None:
        """Shows the rows that are found, with `_show`."""
        raise NotImplementedError

    def _show(self, lines: Sequence[tuple[Row | None, Content]], is_wanted: Callable[[Row], bool]) -> None:
        """Shows these lines; the one that is wanted is highlighted, else the first."""
        self._rows = [row for row, _ in lines]
        drawn = [line for _, line in lines]
        if drawn != self._drawn:
            self._drawn = drawn
            self._list.set_options([Option(line, disabled=row is None) for row, line in lines])
        places = [at for at, row in enumerate(self._rows) if row is not None]
        wanted = (at for at in places if (row := self._rows[at]) is not None and is_wanted(row))
        self._list.highlighted = next(wanted, places[0] if places else None)

    def action_choose(self) -> None:
        """The highlighted row is used."""
        raise NotImplementedError

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_choose()

    def action_move(self, action: str) -> None:
        getattr(self._list, f"action_{action}")()
