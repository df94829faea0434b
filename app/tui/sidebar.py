"""The stored chats, at the side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from specee.app.chat.history.records import Hit
from specee.app.chat.history.store import Store
from specee.app.formatting import visible

SHOWN = 200
PAUSE_SECONDS = 0.1
"""Without a key, after which is searched: in a large history that can take half a second."""


class Sidebar(Vertical):
    """A search field and the chats, the last one first. Narrow screens show it only when the user asks for it."""

    DEFAULT_CSS = """
    Sidebar { dock: left; width: 30; display: none; border-right: solid $primary-muted; }
    Sidebar Input { border: none; height: 1; padding: 0 1; }
    Sidebar OptionList, Sidebar OptionList:focus { height: 1fr; border: none; padding: 0; background: transparent; }
    Sidebar.-chats OptionList { text-wrap: nowrap; text-overflow: ellipsis; }
    """

    class Chosen(Message):
        """The user wants this chat, and of it the branch with this turn if one was found."""

        def __init__(self, chat: int, turn: int | None = None) -> None:
            super().__init__()
            self.chat, self.turn = chat, turn

    class Found(Message):
        """The turns with `text`, or the error that came instead."""

        def __init__(self, text: str, hits: Sequence[Hit] | Exception) -> None:
            super().__init__()
            self.text, self.hits = text, hits

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._search_field = Input(placeholder="Search all chats", compact=True)
        self._list = OptionList()
        self._current: int | None = None
        self._choices: list[Sidebar.Chosen] = []  # by row
        self._search: asyncio.Task[None] | None = None  # the last one, which may be under way
        self._searched = ""  # what the rows are for
        self._entered = False  # the list gets the focus when its rows are here

    def compose(self) -> ComposeResult:
        yield self._search_field
        yield self._list

    def refresh_chats(self, current: int | None) -> None:
        """Reads the chats again; the one in use is marked."""
        self._current = current
        if self._search_field.value.strip() or not self.display:
            return
        chats = self._store.chats(SHOWN)
        marks = (">" if chat.id == current else " " for chat in chats)
        names = (" ".join(chat.title.split()) or "(no title)" for chat in chats)  # an imported title may have lines
        titles = [f"{mark} {name}" for mark, name in zip(marks, names, strict=True)]
        self._show([self.Chosen(chat.id) for chat in chats], titles)

    def on_show(self) -> None:
        self.refresh_chats(self._current)

    def toggle(self) -> bool:
        """Shows or hides itself; returns whether it is shown now."""
        shown = not self.display
        self.set_class(shown, "-shown")
        self.set_class(not shown, "-hidden")
        if shown:
            self.refresh_chats(self._current)
            self._list.focus()
        return shown

    def hide(self) -> None:
        """Hides itself again, where there is no room for it all the time."""
        self.remove_class("-shown")

    def search(self, text: str) -> None:
        """Shows the turns that are found instead of the list of chats."""
        if not self.display:
            self.toggle()
        self._search_field.value = text
        self._search_field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._searched, self._entered = "", False
        if self._search is not None:
            self._search.cancel()
        self._search = asyncio.create_task(self._find(event.value))
        if not event.value.strip():
            self.refresh_chats(self._current)

    async def _find(self, text: str) -> None:
        """Searches beside the screen: keys do not wait for it."""
        if not text.strip():
            return
        await asyncio.sleep(PAUSE_SECONDS)
        hits: Sequence[Hit] | Exception
        try:
            hits = await asyncio.to_thread(self._store.search, text, SHOWN)
        except Exception as error:
            hits = error
        self.post_message(self.Found(text, hits))

    def on_sidebar_found(self, message: Found) -> None:
        message.stop()
        if isinstance(message.hits, Exception):
            raise message.hits
        if message.text != self._search_field.value:
            return  # something else is wanted by now
        hits, self._searched = message.hits, message.text
        self._show([self.Chosen(hit.chat, hit.turn) for hit in hits], [" ".join(hit.excerpt.split()) for hit in hits])
        if self._entered:
            self._list.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._entered = event.value.strip() != "" and event.value != self._searched
        if not self._entered:
            self._list.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        chosen = self._choices[event.option_index]
        self.post_message(self.Chosen(chosen.chat, chosen.turn))

    def _show(self, choices: list[Sidebar.Chosen], texts: Sequence[str]) -> None:
        self._choices = choices
        self.set_class(not self._search_field.value.strip(), "-chats")
        self._list.clear_options()
        self._list.add_options([Option(Content(visible(text))) for text in texts])
        self._list.highlighted = 0 if texts else None
