"""The conversation on the screen: turns of the branch in use, and the answer that grows."""

from __future__ import annotations

from collections.abc import Sequence

from textual.containers import VerticalScroll
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from specee.app.history.records import Turn

SHOWN = 20  # turns that are put on the screen at once: more take seconds, and few scroll so far up
STATES = {"interrupted": "interrupted: /continue goes on", "stopped": "stopped: /continue goes on"}


class Said(Static):
    """What the user said, as it is."""

    DEFAULT_CSS = """
    Said { margin: 1 0 0 0; padding: 0 1; color: $accent; border-left: thick $accent; }
    """

    def __init__(self, text: str) -> None:
        super().__init__(text, markup=False)


class Notice(Static):
    """A word from the program: hints, marks and errors."""

    DEFAULT_CSS = """
    Notice { margin: 1 0 0 0; color: $text-muted; }
    Notice.error { color: $text-error; }
    """

    def __init__(self, text: str, *, error: bool = False) -> None:
        super().__init__(text, markup=False, classes="error" if error else None)


class Conversation(VerticalScroll):
    """Turns from top to bottom; it follows its end unless the user has scrolled up."""

    DEFAULT_CSS = """
    Conversation { height: 1fr; padding: 0 1; }
    Conversation Markdown { margin: 0; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__(id="conversation", can_focus=False)
        self._stream: MarkdownStream | None = None
        self._answer: Markdown | None = None

    def on_mount(self) -> None:
        self.anchor()

    async def show_path(self, path: Sequence[Turn], *, all_of_it: bool = False) -> None:
        """Shows a branch anew; without `all_of_it`, only its end."""
        await self.remove_children()
        first = 0 if all_of_it else max(0, len(path) - SHOWN)
        widgets: list[Static | Markdown] = []
        if first:
            widgets.append(Notice(f"{first} earlier turns: /earlier shows them"))
        for turn in path[first:]:
            widgets += _widgets(turn)
        await self.mount_all(widgets)
        self.anchor()

    async def add(self, widget: Static | Markdown) -> None:
        """Something more at the end."""
        if self.is_attached:
            await self.mount(widget)

    async def open_answer(self, text: str = "") -> None:
        """An answer begins; `text` is what there is of it."""
        self._answer = Markdown(text, open_links=False)
        await self.add(self._answer)
        self._stream = Markdown.get_stream(self._answer)

    async def write(self, text: str) -> None:
        """More of the answer."""
        if self._stream is not None:
            await self._stream.write(text)

    async def close_answer(self, turn: Turn | None) -> None:
        """The answer is over: its whole text once, since a stream may have read half a table or list otherwise."""
        stream, answer, self._stream, self._answer = self._stream, self._answer, None, None
        if stream is None or answer is None:
            return
        await stream.stop()
        if turn is not None and turn.role == "assistant" and self.is_attached:
            await answer.update(turn.content)
            if note := _note(turn):
                await self.add(Notice(note))


def _widgets(turn: Turn) -> list[Static | Markdown]:
    found: list[Static | Markdown] = []
    if turn.cut is not None:
        found.append(Notice("── what stands above is not sent to the model any more ──"))
        if turn.cut:
            found.append(Notice(f"its summary: {turn.cut}"))
    found.append(Said(turn.content) if turn.role == "user" else Markdown(turn.content, open_links=False))
    if note := _note(turn):
        found.append(Notice(note))
    return found


def _note(turn: Turn) -> str:
    """What there is to say of a turn: its state, its place among branches."""
    parts = [STATES[turn.state]] if turn.role == "assistant" and turn.state in STATES else []
    if turn.siblings > 1:
        parts.append(f"branch {turn.place} of {turn.siblings}: /branch {turn.place % turn.siblings + 1} shows another")
    return " · ".join(parts)
