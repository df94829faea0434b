"""The conversation on the screen: one widget, however many turns there are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.style import Style

from specee.app.chat.history.records import Turn
from specee.app.chat.markdown_source import code_blocks
from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.entries import Entry, Notice, QuestionEntry
from specee.app.tui.growing_answer import GrowingAnswer
from specee.app.tui.line_view import LineView
from specee.app.tui.markdown import CODE_ACTION, COPY_CODE
from specee.app.tui.message_cursor import MessageCursor
from specee.app.tui.message_header import ACTION, ACTIONS, DELETE, NEXT, PREVIOUS, MessageHeader
from specee.app.tui.thought_entry import ThoughtEntry
from specee.app.tui.token_mark import TokenMark, offset_at
from specee.app.tui.turn_entries import entries_of
from specee.app.tui.wrapping import CODE, NOTHING, Line

SHOWN = 20  # turns that are put on the screen at once
PAGE = 40  # and so many more when the user wants to see earlier ones
EMPTY = Line(NOTHING)


class Conversation(LineView, can_focus=False):
    """Entries from top to bottom, an empty line between two; it follows its end unless the user has scrolled up.

    It has the focus only while the user goes from message to message with keys.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Message before"),
        Binding("down", "move(1)", "Message after"),
        Binding("left", f"act('{PREVIOUS}')", "Branch before"),
        Binding("right", f"act('{NEXT}')", "Branch after"),
        Binding("f", "fold", "Fold its code, or show all of it"),
        Binding("delete", f"act('{DELETE.name}')", DELETE.help),
        *(Binding(action.key, f"act('{action.name}')", action.help) for action in ACTIONS),
    ]

    DEFAULT_CSS = """
    Conversation { height: 1fr; padding: 0 1; }
    Conversation > .conversation--question { color: $accent; }
    Conversation > .conversation--notice { color: $text-muted; }
    Conversation > .conversation--error { color: $text-error; }
    Conversation > .conversation--code { background: $boost; }
    Conversation > .conversation--thought { color: $text-muted; text-style: dim; }
    Conversation > .conversation--header { color: $text-muted; }
    Conversation > .conversation--code-head { color: $text-muted; background: $boost; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "conversation--question",
        "conversation--notice",
        "conversation--error",
        "conversation--code",
        "conversation--thought",
        "conversation--header",
        "conversation--code-head",
    }

    class EarlierShown(Message):
        """Earlier turns were added at the top."""

    class Clicked(Message):
        """The user clicked a character of the last answer: `offset` in its text."""

        def __init__(self, text: str, offset: int) -> None:
            super().__init__()
            self.text, self.offset = text, offset

    class Left(Message):
        """The user does not go from message to message any more."""

    class Acted(Message):
        """The user wants something done with a message."""

        def __init__(self, action: str, turn: Turn) -> None:
            super().__init__()
            self.action, self.turn = action, turn

    class CopyCode(Message):
        """The user wants this code."""

        def __init__(self, code: str) -> None:
            super().__init__()
            self.code = code

    def __init__(self) -> None:
        super().__init__(id="conversation")
        self.entries: list[Entry] = []
        self._tops = [0]  # the first line of each entry, and the end
        self._earlier: list[Turn] = []  # turns above that are not shown yet
        self.answer: GrowingAnswer | None = None  # under way
        self.shows_thoughts = False
        self._follows = True
        self.cursor = MessageCursor(self)
        self._mark = TokenMark()

    # ---- what is in it ---------------------------------------------------------------------------------------------

    def show_branch(self, branch: Sequence[Turn]) -> None:
        """Shows the end of a branch, in place of everything."""
        first = max(0, len(branch) - SHOWN)
        self._earlier, self.answer = list(branch[:first]), None
        self._mark.set(None, None)
        self.cursor.forget()
        entries = [entry for turn in branch[first:] for entry in self._entries_of(turn)]
        _mark_last(entries)
        self._replace(entries)
        self.go_to_end()

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
        return entries_of(turn, shows_thoughts=self.shows_thoughts)

    def add(self, entry: Entry) -> None:
        """Adds an entry at the end."""
        self.entries.append(entry)
        self.changed(entry)

    def add_question(self, text: str) -> None:
        """Adds what the user asks."""
        self.add(MessageHeader("user"))
        self.add(QuestionEntry(text))

    def changed(self, entry: Entry) -> None:
        """An entry has other content now."""
        if self._width:
            entry.lay_out(self._width, plain=self.app.no_color)
        self.lines_changed(entry)

    def open_answer(self, text: str = "", thought: str = "") -> None:
        """An answer begins; `text` and `thought` are the part of it that is there already."""
        self.answer = GrowingAnswer(self, text, thought)

    def close_answer(self, turn: Turn | None) -> None:
        """The answer is over; `turn` is how it was stored."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.close(turn)

    def toggle_thoughts(self) -> bool:
        """Shows all thoughts, or folds them; returns whether there are any."""
        thoughts = [entry for entry in self.entries if isinstance(entry, ThoughtEntry)]
        self.shows_thoughts = any(not thought.is_open for thought in thoughts)
        for thought in thoughts:
            thought.toggle(is_open=self.shows_thoughts)
        self._place(0)
        self.forget_drawn()
        self.refresh()
        return bool(thoughts)

    def set_turns(self, branch: Sequence[Turn]) -> None:
        """Messages are stored like this now: `branch` ends with the last one that is shown."""
        for header, turn in zip(reversed(self.headers), reversed(branch), strict=False):
            if header.role != turn.role:
                break
            if header.turn != turn or header.is_last != (turn is branch[-1]):
                header.turn, header.is_last = turn, turn is branch[-1]
                self.draw_header(header)

    # ---- one message, one token --------------------------------------------------------------------------------------

    @property
    def headers(self) -> list[MessageHeader]:
        """Of all messages that are shown."""
        return [entry for entry in self.entries if isinstance(entry, MessageHeader)]

    @property
    def _last_answer(self) -> AnswerEntry | None:
        return next((entry for entry in reversed(self.entries) if isinstance(entry, AnswerEntry)), None)

    @property
    def answer_text(self) -> str:
        """The text of the last answer."""
        return answer.text if (answer := self._last_answer) is not None else ""

    def select_turn(self, turn_id: int) -> None:
        """Goes to the message that is stored under this number."""
        for header in self.headers:
            if header.turn is not None and header.turn.id == turn_id:
                self.cursor.select(header)

    def mark(self, span: tuple[int, int] | None) -> None:
        """Marks these characters of the last answer, and brings them into view; None: nothing is marked."""
        if self._mark.set(self._last_answer, span):
            self.refresh()
        if self._mark.answer is not None and self._mark.lines:
            self.show_entry(self._mark.answer, min(self._mark.lines))

    def marked_at(self, y: int) -> tuple[int, int] | None:
        if not self._mark.lines:
            return None
        index = self._entry_at(y)
        if not 0 <= index < len(self.entries) or self.entries[index] is not self._mark.answer:
            return None
        return self._mark.lines.get(y - self._tops[index])

    def draw_header(self, header: MessageHeader) -> None:
        """A header says something else now."""
        if header in self.entries and self._width:
            header.lay_out(self._width, plain=self.app.no_color)
            self.refresh_lines(self._tops[self.entries.index(header)], 1)

    def show_entry(self, entry: Entry, line: int = 0) -> None:
        """Scrolls to a line of an entry, unless it is in view."""
        y, height = self._tops[self.entries.index(entry)] + line, self.container_size.height
        if not self.scroll_offset.y <= y < self.scroll_offset.y + height - 1:
            self.scroll_to(y=max(0, y - height // 3 if line else y), animate=False)

    def action_move(self, step: int) -> None:
        """Goes to the message before or after."""
        self.cursor.move(step)

    def action_act(self, action: str) -> None:
        """Something is done with the message that keys have gone to."""
        self.cursor.act(self.cursor.selected, action)

    def action_fold(self) -> None:
        """Folds the code of the message that keys have gone to, or shows it."""
        if (answer := self.cursor.answer()) is not None:
            answer.fold_all()
            self._code_folded(answer)

    def _code_folded(self, answer: AnswerEntry) -> None:
        self.lines_changed(answer)
        self._mark.find()

    def on_blur(self) -> None:
        if self.cursor.selected is not None and self.app.app_focus:
            self.cursor.select(None)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.cursor.hover(self._under(event)[0])

    def on_leave(self) -> None:
        self.cursor.hover(None)

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
        heights = (len(entry.lines) + entry.gap for entry in self.entries[first:])
        self._tops[first:] = list(accumulate(heights, initial=self._tops[first]))
        self.set_height(max(0, self._tops[-1] - 1))

    def lines_changed(self, entry: Entry, first: int = 0) -> None:
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

    def go_to_end(self) -> None:
        """Shows the end, and follows it again: the user has asked for something, whose outcome comes there."""
        self._follows = True
        self._follow()

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
            self._mark.find()
            self.refresh()
            if not follows and index < len(self.entries):
                self.scroll_to(y=self._tops[index], animate=False)
        self.update_scrollbar()
        self._follows = follows
        self._follow()

    # ---- clicks ----------------------------------------------------------------------------------------------------

    def _under(self, event: events.MouseEvent) -> tuple[Entry | None, int]:
        """The entry under the pointer, and which of its lines."""
        y = event.get_content_offset_capture(self).y + self.scroll_offset.y
        index = self._entry_at(y)
        return (self.entries[index], y - self._tops[index]) if 0 <= index < len(self.entries) else (None, 0)

    def on_click(self, event: events.Click) -> None:
        """A click on a thought's line opens or folds it, one on a word of a header or above code does what it says, one
        on the last answer chooses a token; a double click selects the code block or the entry under the pointer."""
        entry, line = self._under(event)
        if event.chain == 1 and entry is not None and self.text_selection is None:
            self._clicked(entry, line, event)
        elif event.chain == 2:
            event.prevent_default()  # Textual selects the whole widget
            if entry is not None and not isinstance(entry, MessageHeader):
                self._select_text(entry, line)

    def _clicked(self, entry: Entry, line: int, event: events.Click) -> None:
        meta = event.style.meta
        if isinstance(entry, MessageHeader):
            self.cursor.act(entry, meta.get(ACTION, ""))
        elif isinstance(entry, ThoughtEntry) and line == 0:
            entry.toggle(is_open=not entry.is_open)
            self.lines_changed(entry)
        elif isinstance(entry, AnswerEntry) and CODE_ACTION in meta:
            block = entry.code_block_at(line)
            if meta[CODE_ACTION] == COPY_CODE:
                self.post_message(self.CopyCode(code_blocks(entry.text)[block]))
            else:
                entry.fold(block)
                self._code_folded(entry)
        elif entry is self._last_answer and isinstance(entry, AnswerEntry):
            _, at = self.screen.get_widget_and_offset_at(event.screen_x, event.screen_y)
            if at is not None and (offset := offset_at(entry, line, at.x)) is not None:
                self.post_message(self.Clicked(entry.text, offset))

    def _select_text(self, entry: Entry, line: int) -> None:
        top = self._tops[self.entries.index(entry)]
        first, last = top, top + len(entry.lines) - 1
        if self.line_at(top + line).style == CODE:
            first, last = self._end_of_code(top + line, first - 1, -1), self._end_of_code(top + line, last + 1, 1)
        self.select_lines(first, last)

    def _end_of_code(self, y: int, stop: int, step: int) -> int:
        """The last line of the code that `y` is in, towards `stop`."""
        while y + step != stop and self.line_at(y + step).style == CODE:
            y += step
        return y


def _mark_last(entries: Sequence[Entry]) -> None:
    headers = [entry for entry in entries if isinstance(entry, MessageHeader)]
    if headers:
        headers[-1].is_last = True


class _EarlierNotice(Notice):
    """Says that there are earlier turns."""
