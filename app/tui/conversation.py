"""The conversation on the screen: one widget that draws the lines in view, however many there are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.geometry import Offset, Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style

from specee.app.chat.history.records import Turn
from specee.app.tui.answers import Answer, entries_of, note_of
from specee.app.tui.entries import Entry, Notice
from specee.app.tui.lines import NOTHING, Line

SHOWN = 20  # turns that are put on the screen at once
PAGE = 40  # and so many more when the user wants to see what was earlier
CACHED = 256  # drawn lines; many screens more would only be more to clean up
EMPTY = Line(NOTHING)


class Conversation(ScrollView, can_focus=False):
    """Entries from top to bottom, an empty line between two; it follows its end unless the user has scrolled up."""

    DEFAULT_CSS = """
    Conversation { height: 1fr; padding: 0 1; overflow-x: hidden; overflow-y: auto; scrollbar-gutter: stable; }
    Conversation > .conversation--said { color: $accent; }
    Conversation > .conversation--notice { color: $text-muted; }
    Conversation > .conversation--error { color: $text-error; }
    Conversation > .conversation--code { background: $boost; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "conversation--said",
        "conversation--notice",
        "conversation--error",
        "conversation--code",
    }
    # more lines need no new layout of the whole screen: the scrollbar has a place of its own
    virtual_size: Reactive[Size] = Reactive(Size(0, 0), layout=False)

    class Longer(Message):
        """Older turns have come."""

    def __init__(self) -> None:
        super().__init__(id="conversation")
        self.entries: list[Entry] = []
        self._tops = [0]  # the first line of each entry, and the end
        self._earlier: list[Turn] = []  # turns above that are not there yet
        self._answer: Answer | None = None
        self._width = 0
        self._follows = True
        self._drawn: dict[tuple[Line, int, int], Strip] = {}
        self._styles: dict[str | Style, Style] = {}

    # ---- what is in it ---------------------------------------------------------------------------------------------

    def show_path(self, path: Sequence[Turn]) -> None:
        """Shows the end of a branch, anew."""
        first = max(0, len(path) - SHOWN)
        self._earlier, self._answer = list(path[:first]), None
        self._replace([entry for turn in path[first:] for entry in entries_of(turn)])
        self._follows = True
        self._follow()

    def earlier(self) -> bool:
        """A page more at the top, while what is in view stays there; returns whether there was something."""
        if not self._earlier:
            return False
        turns, self._earlier = self._earlier[-PAGE:], self._earlier[:-PAGE]
        before, y = self._tops[-1], self.scroll_offset.y
        kept = [entry for entry in self.entries if not isinstance(entry, _Above)]
        new = [entry for turn in turns for entry in entries_of(turn)]
        for entry in new:
            entry.lay(self._width, plain=self.app.no_color)
        self._replace([*new, *kept], laid=True)
        self.scroll_to(y=y + self._tops[-1] - before, animate=False)
        self.post_message(self.Longer())
        return True

    def add(self, entry: Entry) -> None:
        """Something more at the end."""
        if self._width:
            entry.lay(self._width, plain=self.app.no_color)
        self.entries.append(entry)
        self._grow(entry, 0)

    def changed(self, entry: Entry) -> None:
        """An entry is another one now."""
        if self._width:
            entry.lay(self._width, plain=self.app.no_color)
        self._grow(entry, 0)

    def open_answer(self, text: str = "") -> None:
        """An answer begins; `text` is what there is of it."""
        self._answer = Answer(text)
        self.add(self._answer)

    def write(self, text: str) -> None:
        """More of the answer."""
        if self._answer is not None:
            self._grow(self._answer, self._answer.append(text))

    def close_answer(self, turn: Turn | None) -> None:
        """The answer is over; `turn` is what was kept of it."""
        answer, self._answer = self._answer, None
        if answer is not None and turn is not None and turn.role == "assistant":
            if answer.finish(turn.content):
                self._grow(answer, 0)
            if note := note_of(turn):
                self.add(Notice(note))

    # ---- lines -----------------------------------------------------------------------------------------------------

    def _replace(self, entries: Iterable[Entry], *, laid: bool = False) -> None:
        """Other entries; `laid` when they have their lines."""
        self.entries = list(entries)
        if self._earlier:
            self.entries.insert(0, _Above(f"{len(self._earlier)} earlier turns: /earlier or scrolling up shows them"))
        if self._width:
            for entry in self.entries:
                if not laid or isinstance(entry, _Above):
                    entry.lay(self._width, plain=self.app.no_color)
        self._drawn.clear()
        if self.is_attached:
            self.screen.clear_selection()
        self._count(0)
        self.refresh()

    def _count(self, first: int) -> None:
        """The places of all entries from `first` on."""
        heights = (len(entry.lines) + 1 for entry in self.entries[first:])
        self._tops[first:] = list(accumulate(heights, initial=self._tops[first]))
        self._measure()

    def _measure(self) -> None:
        height = max(0, self._tops[-1] - 1)
        if height != self.virtual_size.height or self._width != self.virtual_size.width:
            self.virtual_size = Size(self._width, height)
            self._show_scrollbar()

    def _show_scrollbar(self) -> None:
        room = self.container_size.height
        if not room:
            return
        self.show_vertical_scrollbar = self.virtual_size.height > room
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.window_virtual_size = self.virtual_size.height
            self.vertical_scrollbar.window_size = room

    def _grow(self, entry: Entry, first: int) -> None:
        """An entry has other lines from `first` on."""
        index = len(self.entries) - 1
        while self.entries[index] is not entry:
            if index == 0:
                return  # it was taken away meanwhile
            index -= 1
        before = self._tops[-1]
        self._count(index)
        top = self._tops[index] + first
        if not self._follow():
            # what stands above stays as it is drawn
            same = self._tops[-1] == before and index == len(self.entries) - 1
            self.refresh_lines(top, (before if same else max(before, self._tops[-1])) - top + 1)

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
            self.call_later(self.earlier)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        if self.scroll_offset.y == 0:
            self.earlier()

    def on_resize(self, event: events.Resize) -> None:
        width = self.scrollable_content_region.width
        follows = self._follows
        if width != self._width:
            index = bisect_right(self._tops, self.scroll_offset.y) - 1
            self._width = width
            self._lay_all()
            if not follows and index < len(self.entries):
                self.scroll_to(y=self._tops[index], animate=False)
        self._show_scrollbar()
        self._follows = follows
        self._follow()

    def _lay_all(self) -> None:
        for entry in self.entries:
            entry.lay(self._width, plain=self.app.no_color)
        self._drawn.clear()
        self._count(0)
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._drawn.clear()
        self._styles.clear()

    # ---- drawing ---------------------------------------------------------------------------------------------------

    def _line(self, y: int) -> Line:
        index = bisect_right(self._tops, y) - 1
        if not 0 <= index < len(self.entries):
            return EMPTY
        lines, within = self.entries[index].lines, y - self._tops[index]
        return lines[within] if within < len(lines) else EMPTY

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines in view. Textual's own cache knows lines by their place in the widget, so that scrolling by one
        draws all of them; here the same line is the same strip wherever it stands."""
        top, selection = self.scroll_offset.y, self.text_selection
        width = crop.right  # of the widget: with the place of the scrollbar when there is none
        strips = []
        for y in range(crop.y + top, crop.bottom + top):
            line = self._line(y)
            if selection is not None and (span := selection.get_span(y)) is not None:
                strips.append(self._finished(self._draw(line, y, span), width))
                continue
            strip = self._drawn.get((line, y, width))
            if strip is None:
                if len(self._drawn) > CACHED:
                    self._drawn.clear()
                strip = self._drawn[line, y, width] = self._finished(self._draw(line, y), width)
            strips.append(strip)
        return [strip.crop(crop.x, crop.right) for strip in strips] if crop.x else strips

    def render_line(self, y: int) -> Strip:
        y += self.scroll_offset.y
        return self._draw(self._line(y), y)

    def _finished(self, strip: Strip, width: int) -> Strip:
        """With its margins, and as the terminal can show it."""
        base = self.visual_style.rich_style
        strip = Strip.join([Strip.blank(1, base), strip]).extend_cell_length(width, base)
        for line_filter in self.get_line_filters():
            strip = strip.apply_filter(line_filter, self.background_colors[1])
        return strip

    def _draw(self, line: Line, y: int, selected: tuple[int, int] | None = None) -> Strip:
        base = self.get_visual_style(f"conversation--{line.style}") if line.style else self.visual_style
        text = line.prefix + line.text
        if selected is not None:
            start, end = selected
            style = Style.from_rich_style(self.selection_style)
            text = text.stylize(style, max(start, line.indent), len(text) if end == -1 else end)
        segments = [Segment(part, (base + style).rich_style) for part, style in text.render(base, "", self._resolve)]
        strip = Strip(segments, text.cell_length).crop_extend(0, self._width, base.rich_style)
        return strip.apply_offsets(0, y)

    def _resolve(self, style: str | Style) -> Style:
        """A style as the theme has it."""
        found = self._styles.get(style)
        if found is None:
            found = Style.parse(style, self.app.theme_variables) if isinstance(style, str) else style
            self._styles[style] = found
        return found

    # ---- selecting with the mouse ----------------------------------------------------------------------------------

    @property
    def allow_select(self) -> bool:
        return True

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is selected as it was before it was wrapped, without bars and indents."""
        start = selection.start or Offset(0, 0)
        end = selection.end or Offset(10**6, max(0, self._tops[-1] - 2))
        text = ""
        for y in range(start.y, end.y + 1):
            line = self._line(y)
            piece = line.plain[: end.x if y == end.y else None]
            piece = piece[max(line.indent, start.x if y == start.y else 0) :]
            text += piece if y == start.y else line.joint + piece
        return text, "\n"

    def on_click(self, event: events.Click) -> None:
        """Twice: selects the code block or the entry under the pointer."""
        if event.chain != 2:
            return
        event.prevent_default()  # Textual selects the whole widget
        y = event.get_content_offset_capture(self).y + self.scroll_offset.y
        index = bisect_right(self._tops, y) - 1
        if not 0 <= index < len(self.entries):
            return
        first, last = self._tops[index], self._tops[index + 1] - 2
        if self._line(y).style == "code":
            first, last = self._run(y, first - 1, -1), self._run(y, last + 1, 1)
        end = Offset(len(self._line(last).plain), last)
        self.screen.selections = {self: Selection(Offset(0, first), end)}

    def _run(self, y: int, stop: int, step: int) -> int:
        """The last line of the code that `y` is in, towards `stop`."""
        while y + step != stop and self._line(y + step).style == "code":
            y += step
        return y


class _Above(Notice):
    """Says that there is more above."""
