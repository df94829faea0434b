"""The conversation on the screen: one widget, however many turns there are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import ClassVar

from textual import events
from textual.message import Message
from textual.style import Style

from specee.app.chat.history.records import Turn
from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.entries import Entry, Notice
from specee.app.tui.line_view import LineView
from specee.app.tui.thought_entry import ThoughtEntry
from specee.app.tui.turn_entries import entries_of, note_of
from specee.app.tui.wrapping import NOTHING, Line

SHOWN = 20  # turns that are put on the screen at once
PAGE = 40  # and so many more when the user wants to see earlier ones
EMPTY = Line(NOTHING)


class Conversation(LineView, can_focus=False):
    """Entries from top to bottom, an empty line between two; it follows its end unless the user has scrolled up."""

    DEFAULT_CSS = """
    Conversation { height: 1fr; padding: 0 1; }
    Conversation > .conversation--question { color: $accent; }
    Conversation > .conversation--notice { color: $text-muted; }
    Conversation > .conversation--error { color: $text-error; }
    Conversation > .conversation--code { background: $boost; }
    Conversation > .conversation--thought { color: $text-muted; text-style: dim; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "conversation--question",
        "conversation--notice",
        "conversation--error",
        "conversation--code",
        "conversation--thought",
    }

    class EarlierShown(Message):
        """Earlier turns were added at the top."""

    def __init__(self) -> None:
        super().__init__(id="conversation")
        self.entries: list[Entry] = []
        self._tops = [0]  # the first line of each entry, and the end
        self._earlier: list[Turn] = []  # turns above that are not shown yet
        self._answer: AnswerEntry | None = None
        self._thought: ThoughtEntry | None = None  # of that answer
        self._shows_thoughts = False
        self._follows = True

    # ---- what is in it ---------------------------------------------------------------------------------------------

    def show_branch(self, branch: Sequence[Turn]) -> None:
        """Shows the end of a branch, in place of everything."""
        first = max(0, len(branch) - SHOWN)
        self._earlier, self._answer, self._thought = list(branch[:first]), None, None
        self._replace([entry for turn in branch[first:] for entry in self._entries_of(turn)])
        self._follows = True
        self._follow()

    def show_earlier(self) -> bool:
        """Adds a page at the top, while the lines in view stay there; returns whether there was one."""
        if not self._earlier:
            return False
        turns, self._earlier = self._earlier[-PAGE:], self._earlier[:-PAGE]
        before, y = self._tops[-1], self.scroll_offset.y
        kept = [entry for entry in self.entries if not isinstance(entry, _EarlierNotice)]
        new = [entry for turn in turns for entry in self._entries_of(turn)]
        for entry in new:
            entry.lay_out(self._width, plain=self.app.no_color)
        self._replace([*new, *kept], laid_out=True)
        self.scroll_to(y=y + self._tops[-1] - before, animate=False)
        self.post_message(self.EarlierShown())
        return True

    def _entries_of(self, turn: Turn) -> list[Entry]:
        return entries_of(turn, shows_thoughts=self._shows_thoughts)

    def add(self, entry: Entry) -> None:
        """Adds an entry at the end."""
        self.entries.append(entry)
        self.changed(entry)

    def changed(self, entry: Entry) -> None:
        """An entry has other content now."""
        if self._width:
            entry.lay_out(self._width, plain=self.app.no_color)
        self._lines_changed(entry, 0)

    def open_answer(self, text: str = "", thought: str = "") -> None:
        """An answer begins; `text` and `thought` are the part of it that is there already."""
        self._answer, self._thought = AnswerEntry(text), None
        self.add(self._answer)
        if thought:
            self.write_thought(thought, 0.0)
            if text and self._thought is not None:
                self.end_thought()

    def write_thought(self, text: str, seconds: float) -> None:
        """Adds text to the thought before the answer; it took so many seconds so far."""
        if self._answer is None or not (text or self._thought):
            return
        if self._thought is None:
            self._thought = ThoughtEntry(grows=True, is_open=self._shows_thoughts)
            self.entries.insert(self.entries.index(self._answer), self._thought)
            self.changed(self._thought)
        self._lines_changed(self._thought, self._thought.append(text, seconds))

    def end_thought(self) -> None:
        """The answer itself begins."""
        if self._thought is not None:
            self._thought.finish()
            self._lines_changed(self._thought, 0)

    def toggle_thoughts(self) -> bool:
        """Shows all thoughts, or folds them; returns whether there are any."""
        thoughts = [entry for entry in self.entries if isinstance(entry, ThoughtEntry)]
        self._shows_thoughts = any(not thought.is_open for thought in thoughts)
        for thought in thoughts:
            thought.toggle(is_open=self._shows_thoughts)
        self._place(0)
        self.forget_drawn()
        self.refresh()
        return bool(thoughts)

    def write(self, text: str) -> None:
        """Adds text to the answer."""
        if self._answer is not None:
            self._lines_changed(self._answer, self._answer.append(text))

    def close_answer(self, turn: Turn | None) -> None:
        """The answer is over; `turn` is how it was stored."""
        answer, self._answer = self._answer, None
        thought, self._thought = self._thought, None
        if thought is not None:
            if turn is not None and turn.thought:
                thought.keep(turn.thought, turn.thought_seconds)
            thought.finish()
            self._lines_changed(thought, 0)
        if answer is not None and turn is not None and turn.role == "assistant":
            if answer.finish(turn.content):
                self._lines_changed(answer, 0)
            if note := note_of(turn):
                self.add(Notice(note))

    # ---- lines -----------------------------------------------------------------------------------------------------

    def line_at(self, y: int) -> Line:
        index = self._entry_at(y)
        if not 0 <= index < len(self.entries):
            return EMPTY
        lines, within = self.entries[index].lines, y - self._tops[index]
        return lines[within] if within < len(lines) else EMPTY

    def component_style(self, name: str) -> Style:
        return self.get_visual_style(f"conversation--{name}")

    def _entry_at(self, y: int) -> int:
        """The index of the entry that has this line."""
        return bisect_right(self._tops, y) - 1

    def _replace(self, entries: Iterable[Entry], *, laid_out: bool = False) -> None:
        """Shows other entries; `laid_out` when they have their lines."""
        self.entries = list(entries)
        if self._earlier:
            text = f"{len(self._earlier)} earlier turns: /earlier or scrolling up shows them"
            self.entries.insert(0, _EarlierNotice(text))
        if self._width:
            for entry in self.entries:
                if not laid_out or isinstance(entry, _EarlierNotice):
                    entry.lay_out(self._width, plain=self.app.no_color)
        self.forget_drawn()
        if self.is_attached:
            self.screen.clear_selection()
        self._place(0)
        self.refresh()

    def _place(self, first: int) -> None:
        """Computes the places of all entries from `first` on."""
        heights = (len(entry.lines) + 1 for entry in self.entries[first:])
        self._tops[first:] = list(accumulate(heights, initial=self._tops[first]))
        self.set_height(max(0, self._tops[-1] - 1))

    def _lines_changed(self, entry: Entry, first: int) -> None:
        """An entry has other lines from `first` on."""
        index = len(self.entries) - 1
        while self.entries[index] is not entry:
            if index == 0:
                return  # it was removed meanwhile
            index -= 1
        before = self._tops[-1]
        self._place(index)
        top = self._tops[index] + first
        if not self._follow():
            # what stands above stays as it is drawn
            same = self._tops[-1] == before and index == len(self.entries) - 1
            self.refresh_lines(top, (before if same else max(before, self._tops[-1])) - top + 1)

    # ---- scrolling -------------------------------------------------------------------------------------------------

    def _follow(self) -> bool:
        """Goes to the end, unless the user has scrolled up; returns whether that moved anything."""
        if not self._follows or not self._width or self.scroll_offset.y >= self.max_scroll_y:
            return False
        self.scroll_to(y=self.max_scroll_y, animate=False)
        return True

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follows = round(new_value) >= self.max_scroll_y
        if self._earlier and round(new_value) <= 0 < round(old_value):
            self.call_later(self.show_earlier)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        if self.scroll_offset.y == 0:
            self.show_earlier()

    def on_resize(self, event: events.Resize) -> None:
        width = self.scrollable_content_region.width
        follows = self._follows
        if width != self._width:
            index = self._entry_at(self.scroll_offset.y)
            self._width = width
            for entry in self.entries:
                entry.lay_out(self._width, plain=self.app.no_color)
            self.forget_drawn()
            self._place(0)
            self.refresh()
            if not follows and index < len(self.entries):
                self.scroll_to(y=self._tops[index], animate=False)
        self.update_scrollbar()
        self._follows = follows
        self._follow()

    # ---- clicks ----------------------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        """A click on a thought's line opens or folds it; a double click selects the code block or the entry under the
        pointer."""
        y = event.get_content_offset_capture(self).y + self.scroll_offset.y
        index = self._entry_at(y)
        entry = self.entries[index] if 0 <= index < len(self.entries) else None
        if event.chain == 1 and isinstance(entry, ThoughtEntry) and y == self._tops[index]:
            if self.text_selection is None:
                entry.toggle(is_open=not entry.is_open)
                self._lines_changed(entry, 0)
            return
        if event.chain != 2:
            return
        event.prevent_default()  # Textual selects the whole widget
        if entry is None:
            return
        first, last = self._tops[index], self._tops[index + 1] - 2
        if self.line_at(y).style == "code":
            first, last = self._end_of_code(y, first - 1, -1), self._end_of_code(y, last + 1, 1)
        self.select_lines(first, last)

    def _end_of_code(self, y: int, stop: int, step: int) -> int:
        """The last line of the code that `y` is in, towards `stop`."""
        while y + step != stop and self.line_at(y + step).style == "code":
            y += step
        return y


class _EarlierNotice(Notice):
    """Says that there are earlier turns."""
