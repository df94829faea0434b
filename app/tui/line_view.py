"""A scrolled column of lines, of which only those in view are drawn; the mouse selects text in it."""

from __future__ import annotations

from rich.segment import Segment
from textual.geometry import Offset, Region, Size
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style

from specee.app.tui.wrapping import Line

MARKED = Style(reverse=True)
CACHED = 256  # drawn lines; many more than a screen would only be more to clean up


class LineView(ScrollView, can_focus=False):
    """Draws the lines that a subclass has. The scrollbar keeps its place when there is nothing to scroll."""

    DEFAULT_CSS = """
    LineView { overflow-x: hidden; overflow-y: auto; scrollbar-gutter: stable; }
    """
    # more lines need no new layout of the whole screen: the scrollbar has a place of its own
    virtual_size: Reactive[Size] = Reactive(Size(0, 0), layout=False)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._width = 0  # of the text, in cells
        self._drawn: dict[tuple[Line, int, int], Strip] = {}
        self._styles: dict[str | Style, Style] = {}

    def line_at(self, y: int) -> Line:
        """The line at `y`, an empty one where there is none."""
        raise NotImplementedError

    def marked_at(self, y: int) -> tuple[int, int] | None:
        """The characters of the line at `y` that are marked: from, and up to before."""
        return None

    def component_style(self, name: str) -> Style:
        """The style of lines whose `style` is this name."""
        raise NotImplementedError

    # ---- size ------------------------------------------------------------------------------------------------------

    def set_height(self, n_lines: int) -> None:
        """There are so many lines now."""
        if n_lines != self.virtual_size.height or self._width != self.virtual_size.width:
            self.virtual_size = Size(self._width, n_lines)
            self.update_scrollbar()
            if self.scroll_offset.y > self.max_scroll_y:  # without a layout nobody else goes back to what is there
                self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def update_scrollbar(self) -> None:
        """Shows the scrollbar if there is something to scroll."""
        room = self.container_size.height
        if not room:
            return
        self.show_vertical_scrollbar = self.virtual_size.height > room
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.window_virtual_size = self.virtual_size.height
            self.vertical_scrollbar.window_size = room

    # ---- drawing ---------------------------------------------------------------------------------------------------

    def forget_drawn(self) -> None:
        """The lines are others now, or look different."""
        self._drawn.clear()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._drawn.clear()
        self._styles.clear()

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines in view. Textual's own cache knows lines by their place in the widget, so that scrolling by one
        draws all of them; here a line is drawn once for its place among all lines."""
        top, selection = self.scroll_offset.y, self.text_selection
        width = crop.right  # of the widget: with the place of the scrollbar when there is none
        strips = []
        for y in range(crop.y + top, crop.bottom + top):
            line = self.line_at(y)
            if (marked := self.marked_at(y)) is not None:
                strips.append(self._finished(self._draw(line, y, marked, MARKED), width))
                continue
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
        return self._draw(self.line_at(y), y)

    def _finished(self, strip: Strip, width: int) -> Strip:
        """With its margins, and as the terminal can show it."""
        base = self.visual_style.rich_style
        strip = Strip.join([Strip.blank(1, base), strip]).extend_cell_length(width, base)
        for line_filter in self.get_line_filters():
            strip = strip.apply_filter(line_filter, self.background_colors[1])
        return strip

    def _draw(
        self, line: Line, y: int, selected: tuple[int, int] | None = None, selection: Style | None = None
    ) -> Strip:
        base = self.component_style(line.style) if line.style else self.visual_style
        text = line.prefix + line.text
        if selected is not None:
            start, end = selected
            style = selection or self._selected_style()
            text = text.stylize(style, max(start, line.indent), len(text) if end == -1 else end)
        segments = [Segment(part, (base + style).rich_style) for part, style in text.render(base, "", self._resolve)]
        strip = Strip(segments, text.cell_length).crop_extend(0, self._width, base.rich_style)
        return strip.apply_offsets(0, y)

    def _selected_style(self) -> Style:
        """Of selected text: its own colours on another background (the theme's style for it has the background's
        colour for the text, too)."""
        if self.app.no_color:
            return MARKED
        return Style(background=Style.from_rich_style(self.selection_style).background)

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
        """The selected text as it was before it was wrapped, without bars and indents."""
        start = selection.start or Offset(0, 0)
        end = selection.end or Offset(10**6, max(0, self.virtual_size.height - 1))
        text = ""
        for y in range(start.y, end.y + 1):
            line = self.line_at(y)
            piece = line.plain[: end.x if y == end.y else None]
            piece = piece[max(line.indent, start.x if y == start.y else 0) :]
            text += piece if y == start.y else line.joint + piece
        return text, "\n"

    def select_lines(self, first: int, last: int) -> None:
        """Selects whole lines."""
        end = Offset(len(self.line_at(last).plain), last)
        self.screen.selections = {self: Selection(Offset(0, first), end)}
