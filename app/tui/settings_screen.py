"""The settings as a form: each with what it does, checked while it is typed, for this chat or for every new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import set_cell_size
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from specee.app import config_file, settings
from specee.app.chat import setting_list
from specee.app.chat.setting_list import EFFECTS, ChatSetting
from specee.app.errors import AppError
from specee.app.formatting import visible
from specee.app.tui.key_line import key_line

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

NAME_CELLS = 18
VALUE_CELLS = 14
LOOK_SECONDS = 0.5  # a model that is being loaded changes what stands here
IN_FILE = "kept"


class SettingsScreen(Screen[None]):
    """Arrows choose a setting, what is typed is its new value; the keys at the bottom do what they say."""

    DEFAULT_CSS = """
    SettingsScreen { background: $background; }
    SettingsScreen OptionList, SettingsScreen OptionList:focus { height: 1fr; border: none; padding: 0 1;
        text-wrap: nowrap; background: transparent; scrollbar-size-vertical: 1; }
    SettingsScreen #title { padding: 0 1; border-top: solid $primary-muted; height: 2; text-style: bold; }
    SettingsScreen Input { border: none; height: 1; padding: 0 1; background: $boost; }
    SettingsScreen #verdict { height: auto; max-height: 3; padding: 0 1; }
    SettingsScreen #verdict.-wrong { color: $text-error; }
    SettingsScreen #about { height: auto; max-height: 7; padding: 0 1; color: $text-muted; }
    SettingsScreen.-short #about { max-height: 2; }
    SettingsScreen #keys { height: auto; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "set", "use", priority=True),
        Binding("ctrl+s", "keep", "keep in config.toml", priority=True),
        Binding("tab", "choice(1)", "choices", priority=True),
        Binding("shift+tab", "choice(-1)", "choice before", show=False, priority=True),
        Binding("ctrl+r", "default", "default", priority=True),
        Binding("escape,ctrl+c", "leave", "leave", priority=True),
        Binding("up,ctrl+p", "move('cursor_up')", "setting before", show=False, priority=True),
        Binding("down,ctrl+n", "move('cursor_down')", "next setting", show=False, priority=True),
        Binding("pageup", "move('page_up')", "scroll up", show=False, priority=True),
        Binding("pagedown", "move('page_down')", "scroll down", show=False, priority=True),
    ]
    app: ChatApp

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[ChatSetting | None] = []  # by line; None: a heading
        self._drawn: list[Content] = []
        self._kept: dict[str, Any] = {}  # what config.toml says
        self._list = OptionList()
        self._title, self._verdict = Static("", id="title", markup=False), Static("", id="verdict", markup=False)
        self._field = Input(compact=True, select_on_focus=False)
        self._about, self._keys = Static("", id="about", markup=False), Static(key_line(self.BINDINGS), id="keys")

    def compose(self) -> ComposeResult:
        yield self._list
        yield self._title
        yield self._field
        yield self._verdict
        yield self._about
        yield self._keys

    def on_mount(self) -> None:
        heading = None
        for setting in setting_list.all_settings():
            if setting.heading != heading:
                heading = setting.heading
                self._rows.append(None)
            self._rows.append(setting)
        self._field.focus()
        self._read_file()
        self._show_rows()
        self._list.highlighted = 1
        self.set_interval(LOOK_SECONDS, self._show_rows)

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._show_rows)

    # ---- what it shows ---------------------------------------------------------------------------------------------

    @property
    def _setting(self) -> ChatSetting:
        """The one that is highlighted."""
        at = self._list.highlighted
        found = self._rows[at if at is not None else 1]
        assert found is not None  # headings cannot be highlighted
        return found

    def _read_file(self) -> None:
        try:
            self._kept = config_file.read(self.app.session.folders.config)
        except AppError as error:
            self._kept = {}
            self._say(error.line, wrong=True)

    def _value(self, setting: ChatSetting) -> Any:
        return setting_list.value(self.app, setting, self._kept)

    def _show_rows(self) -> None:
        """Shows all values as they are now."""
        width = max(20, self._list.scrollable_content_region.width - 2)
        lines = []
        for at, setting in enumerate(self._rows):
            if setting is None:
                following = self._rows[at + 1]
                assert following is not None
                lines.append(Content.styled(following.heading, "bold $accent"))
            else:
                lines.append(self._line(setting, width))
        if lines == self._drawn:
            return
        self._drawn = lines
        highlighted = self._list.highlighted
        self._list.set_options(
            [Option(line, disabled=row is None) for row, line in zip(self._rows, lines, strict=True)]
        )
        self._list.highlighted = highlighted

    def _line(self, setting: ChatSetting, width: int) -> Content:
        value = self._value(setting)
        words, is_default = " ".join(visible(setting.words(value)).split()), setting.is_default(value)
        notes = [] if is_default else [f"default {setting.default}"]
        if setting.name in self._names_kept:
            notes.insert(0, IN_FILE)
        name = Content(set_cell_size(f"  {setting.name}", NAME_CELLS + 2))
        shown = Content.styled(words.ljust(VALUE_CELLS), "" if is_default else "bold")
        return (name + shown + Content.styled(f"  {', '.join(notes)}", "$text-muted")).truncate(width, ellipsis=True)

    @property
    def _names_kept(self) -> set[str]:
        return {key.replace("-", "_") for key in self._kept}

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if self._title.content != self._setting.name:
            self._show_setting()

    def _show_setting(self) -> None:
        """The field has the present value, which the first key replaces."""
        setting = self._setting
        self._title.update(setting.name)
        words = setting.words(self._value(setting))
        with self._field.prevent(Input.Changed):
            self._field.value = "" if "\n" in words else words
        self._field.action_select_all()
        self._field.placeholder = setting.default
        allowed = ", ".join(setting.choices) or settings.allowed(setting.kind)
        lines = [setting.help, f"{allowed}; default: {setting.default}. {EFFECTS[setting.effect].capitalize()}."]
        if not setting.in_config:
            lines.append("It is of a chat: config.toml has no place for it.")
        elif setting.name in self._names_kept:
            lines.append(f"config.toml has it: {setting.words(setting_list.kept_value(setting, self._kept))}")
        self._about.update(visible("\n".join(lines)))
        self._say("")

    def _say(self, text: str, *, wrong: bool = False) -> None:
        self._verdict.update(visible(text))
        self._verdict.set_class(wrong, "-wrong")

    # ---- what the user does ----------------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        """Says at once whether what is typed can be."""
        event.stop()
        try:
            value = self._typed()
        except AppError as error:
            self._say(error.message, wrong=True)
            return
        setting = self._setting
        effect = "Ctrl+S keeps it for the next start" if setting.effect == "start" else "Enter uses it"
        self._say(f"{setting.name} {setting.words(value)}: {effect}")

    def _typed(self) -> Any:
        """What the field says. Raises AppError for what cannot be."""
        setting = self._setting
        value = setting.read(self._field.value)
        setting_list.changed_options(self.app.options, setting, value)
        return value

    def action_set(self) -> None:
        """The chat goes on with what is typed."""
        self._try(self._set)

    def _set(self) -> str:
        setting, value = self._setting, self._typed()
        if setting.effect == "start":
            return f"{setting.name} is read when specee-chat starts: Ctrl+S keeps it"
        if not self._is_changed(setting):
            return f"{setting.name} is that already"
        setting_list.apply(self.app, setting, value)
        self._show_rows()
        return f"{setting.name} {setting.words(value)} {EFFECTS[setting.effect]}"

    def _is_changed(self, setting: ChatSetting) -> bool:
        """Whether the field has another value than the chat."""
        words = setting.words(self._value(setting))
        return self._field.value.strip() != words and not ("\n" in words and not self._field.value)

    def action_keep(self) -> None:
        """The chat, and every new one, goes on with what is typed."""
        self._try(self._keep)

    def _keep(self) -> str:
        setting, value = self._setting, self._typed()
        if "\n" in setting.words(self._value(setting)) and not self._field.value:
            value = self._value(setting)  # a text of several lines, as it is
        said = setting_list.keep(self.app, setting, value)
        self._read_file()
        self._show_rows()
        return said

    def _try(self, work: Any) -> None:
        try:
            text = work()
        except AppError as error:
            self._say(error.line, wrong=True)
        else:
            self._say(text)

    def action_choice(self, step: int) -> None:
        """Writes the next of the values that it can have."""
        choices = list(self._setting.choices)
        if not choices:
            self._say(f"type {settings.allowed(self._setting.kind)}")
            return
        now = self._field.value.strip()
        at = choices.index(now) + step if now in choices else 0
        self._field.value = choices[at % len(choices)]
        self._field.action_select_all()

    def action_default(self) -> None:
        """Writes the default."""
        self._field.value = self._setting.default
        self._field.action_select_all()

    def action_move(self, action: str) -> None:
        getattr(self._list, f"action_{action}")()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._field.focus()

    def action_leave(self) -> None:
        self.dismiss()
