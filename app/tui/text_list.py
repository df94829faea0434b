"""Personas and saved prompts: to pick from, to add to, to rename and to delete. They are kept in config.toml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, set_cell_size
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, OptionList, Static

from specee.app.chat.saved_texts import WORDS
from specee.app.config_file import PERSONAS, PROMPTS
from specee.app.errors import AppError
from specee.app.formatting import visible
from specee.app.tui.question import Question
from specee.app.tui.search_list import SearchList

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

MOST_NAME_CELLS = 30
SEARCH = "Search: a name, or words of a text"
TITLES = {PERSONAS: "Personas: how the model is to behave", PROMPTS: "Saved prompts"}
NONE = {
    PERSONAS: "none yet: Ctrl+N makes one of the system message of this chat",
    PROMPTS: "none yet: Ctrl+S saves what stands in the prompt",
}


@dataclass(frozen=True)
class SavedText:
    """One of them; `table`: of config.toml."""

    table: str
    name: str
    text: str

    @property
    def kind(self) -> str:
        return WORDS[self.table]


class TextList(SearchList[SavedText]):
    """Letters search, arrows move, and the keys at the bottom do what they say."""

    DEFAULT_CSS = """
    TextList #text { height: auto; max-height: 8; padding: 0 1; border-top: solid $primary-muted; }
    TextList.-short #text { max-height: 4; }
    TextList #said { height: auto; max-height: 3; padding: 0 1; color: $text-accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "use", priority=True),
        Binding("ctrl+n", "new_persona", "new persona", priority=True),
        Binding("ctrl+s", "save_prompt", "save the prompt", priority=True),
        Binding("ctrl+r", "rename", "rename", priority=True),
        Binding("delete", "remove", "delete", priority=True),
        Binding("escape,ctrl+c", "leave", "leave", priority=True),
        Binding("up", "move('cursor_up')", "line before", show=False, priority=True),
        Binding("down", "move('cursor_down')", "next line", show=False, priority=True),
        Binding("pageup", "move('page_up')", "scroll up", show=False, priority=True),
        Binding("pagedown", "move('page_down')", "scroll down", show=False, priority=True),
    ]
    app: ChatApp

    def __init__(self) -> None:
        super().__init__(SEARCH, OptionList())
        self._text, self._said = Static("", id="text", markup=False), Static("", id="said", markup=False)
        self._named: Callable[[str], str] | None = None  # what is done with the name that is being written

    def compose(self) -> ComposeResult:
        yield self._search
        yield self._list
        yield self._text
        yield self._said
        yield self._keys

    def on_mount(self) -> None:
        super().on_mount()
        try:
            self.app.texts.read()
        except AppError as error:
            self._say(error.line)
        self._show_rows()

    # ---- what it shows ---------------------------------------------------------------------------------------------

    def _show_rows(self, wanted: SavedText | None = None) -> None:
        searched = "" if self._named is not None else self._search.value.strip().casefold()
        wanted = wanted or self._row
        lines: list[tuple[SavedText | None, Content]] = []
        for table, texts in self.app.texts.by_name.items():
            found = [SavedText(table, name, texts[name]) for name in sorted(texts)]
            found = [one for one in found if searched in f"{one.name}\n{one.text}".casefold()]
            lines.append((None, Content.styled(TITLES[table], "bold $accent")))
            names = min(MOST_NAME_CELLS, max((cell_len(visible(one.name)) for one in found), default=0))
            for one in found:
                first = visible(one.text.strip().partition("\n")[0])
                line = Content(f"  {set_cell_size(visible(one.name), names)}  ") + Content.styled(first, "$text-muted")
                lines.append((one, line.truncate(self._width, ellipsis=True)))
            if not found:
                none = "  none is called that" if texts else f"  {NONE[table]}"
                lines.append((None, Content.styled(none, "$text-muted")))
        self._show(lines, lambda row: row == wanted)
        self._show_text()

    def _show_text(self) -> None:
        row = self._row
        self._text.update("" if row is None else visible(row.text))

    def _say(self, text: str) -> None:
        self._said.update(visible(text))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._show_text()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self._named is None:
            self._say("")
            self._show_rows()

    # ---- what the user does ----------------------------------------------------------------------------------------

    def action_choose(self) -> None:
        """The chat has this persona; a saved prompt goes into the prompt. While a name is written: it is taken."""
        if self._named is not None:
            self._take_name()
        elif (row := self._row) is not None:
            self._use(row)

    def _use(self, row: SavedText) -> None:
        app = self.app
        self.dismiss()
        if row.table == PROMPTS:
            app.write_prompt(row.text)
        else:
            app.commands.do_system(row.text)

    def action_new_persona(self) -> None:
        """The system message of this chat becomes one."""
        self._new(PERSONAS, self.app.session.system or "", "this chat has no system message; /system TEXT gives it one")

    def action_save_prompt(self) -> None:
        """What stands in the prompt becomes one."""
        self._new(PROMPTS, self.app.prompt.content.strip(), "the prompt is empty; write one there first")

    def _new(self, table: str, text: str, why_not: str) -> None:
        if not text:
            self._say(why_not)
            return

        def named(name: str) -> str:
            self.app.texts.add(table, name, text)
            return f"{name} is kept"

        self._ask_name("", named)

    def action_rename(self) -> None:
        if (row := self._row) is None:
            return

        def named(name: str) -> str:
            self.app.texts.rename(row.table, row.name, name)
            return f"{row.name} is called {name} now"

        self._ask_name(row.name, named)

    def _ask_name(self, present: str, named: Callable[[str], str]) -> None:
        """The field is for a name until Enter or Esc."""
        self._named = named
        self._search.placeholder = "Its name; Enter takes it, Esc does not"
        self._search.value = present
        self._search.action_select_all()
        self._say("write its name; Enter keeps it, Esc does not")

    def _take_name(self) -> None:
        if self._named is None or not (name := self._search.value.strip()):
            return
        try:
            said = self._named(name)
        except AppError as error:
            self._say(error.line)
            return
        self._end_naming(said)
        self._show_rows(next((row for row in self._rows if row is not None and row.name == name), None))

    def _end_naming(self, said: str) -> None:
        self._named = None
        with self._search.prevent(Input.Changed):
            self._search.placeholder, self._search.value = SEARCH, ""
        self._show_rows()
        self._say(said)

    def action_remove(self) -> None:
        """Deletes it, after a question."""
        if (row := self._row) is None or self._named is not None:
            return

        def answered(yes: bool | None) -> None:
            if not yes:
                return
            try:
                self.app.texts.remove(row.table, row.name)
            except AppError as error:
                self._say(error.line)
                return
            self._show_rows()
            self._say(f"{row.name} is deleted")

        self.app.push_screen(Question(f"Delete the {row.kind} {row.name}?", "delete it"), answered)

    def action_leave(self) -> None:
        if self._named is not None:
            self._end_naming("nothing is changed")
        else:
            self.dismiss()
