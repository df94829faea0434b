"""All keys by where they work, as the bindings themselves have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static, TextArea

from specee.app.tui.key_line import key_line, key_names
from specee.app.tui.wrapping import Block, wrap

if TYPE_CHECKING:
    from specee.app.tui.app import ChatApp

KEY_CELLS = 26
_TEXT_FIELD = (
    "cut",
    "copy",
    "paste",
    "select_all",
    "undo",
    "redo",
    "delete",
    "cursor_word",
    "cursor_line",
    "home",
    "end",
)
"""Beginnings of the actions of a text field that are worth a line; arrows, and what they select, are not."""


class KeyMap(Screen[None]):
    """Scrolls; Esc leaves."""

    DEFAULT_CSS = """
    KeyMap { background: $background; }
    KeyMap #map { height: auto; padding: 0 1; }
    KeyMap #scroll { height: 1fr; overflow-y: auto; scrollbar-size-vertical: 1; }
    KeyMap #keys { height: 1; padding: 0 1; color: $text-muted; dock: bottom; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,ctrl+c,q", "leave", "leave", priority=True),
        Binding("up", "scroll(-1)", "line before", show=False, priority=True),
        Binding("down", "scroll(1)", "next line", show=False, priority=True),
        Binding("pageup", "scroll(-20)", "scroll up", show=False, priority=True),
        Binding("pagedown,space", "scroll(20)", "scroll down", priority=True),
    ]
    app: ChatApp

    def __init__(self) -> None:
        super().__init__()
        self._map, self._keys = Static("", id="map"), Static(key_line(self.BINDINGS), id="keys")

    def compose(self) -> ComposeResult:
        from textual.containers import VerticalScroll

        self._scroll = VerticalScroll(self._map, id="scroll", can_focus=False)
        yield self._scroll
        yield self._keys

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        width = max(20, self.size.width - 4)
        lines: list[Content] = []
        for title, rows in contexts(self.app).items():
            lines += [Content(""), Content.styled(title, "bold $accent")]
            for keys, what in rows:
                names = Content(f"  {keys:{KEY_CELLS - 3}} ")
                blocks = wrap(Block(Content(what), names, Content(" " * KEY_CELLS)), width)
                lines += [line.prefix + line.text for line in blocks]
        self._map.update(Content("\n").join(lines[1:]))

    def action_scroll(self, step: int) -> None:
        self._scroll.scroll_relative(y=step, animate=False)

    def action_leave(self) -> None:
        self.dismiss()


def contexts(app: ChatApp) -> dict[str, list[tuple[str, str]]]:
    """Keys and what they do, by the place where they work."""
    from specee.app.tui.conversation import Conversation
    from specee.app.tui.model_picker import ModelPicker
    from specee.app.tui.prompt_input import KEYS, PromptInput
    from specee.app.tui.question import Question
    from specee.app.tui.settings_screen import SettingsScreen
    from specee.app.tui.text_list import TextList

    palette = Binding(app.COMMAND_PALETTE_BINDING, "command_palette", "Palette: all commands, and themes")
    prompt = [(key_names(key.keys), key.help) for key in KEYS]
    found = {
        "Everywhere in the chat": [*_rows(app.BINDINGS), *_rows([palette])],
        "In the prompt": [*prompt, *_rows(PromptInput.BINDINGS)],
        "On a message": list(_rows(Conversation.BINDINGS)),
        "Writing and changing text": list(_rows(_worth_a_line(TextArea.BINDINGS))),
        "List of models (F3)": list(_rows(ModelPicker.BINDINGS)),
        "Settings (F4)": list(_rows(SettingsScreen.BINDINGS)),
        "Personas and saved prompts (F8)": list(_rows(TextList.BINDINGS)),
        "List of chats (Ctrl+B)": [*_rows(_worth_a_line(Input.BINDINGS)), *_rows(OptionList.BINDINGS)],
        "A question": list(_rows(Question.BINDINGS)),
        "This list (F1)": list(_rows(KeyMap.BINDINGS)),
    }
    return {title: rows for title, rows in found.items() if rows}


def _rows(bindings: Iterable[BindingType]) -> Iterator[tuple[str, str]]:
    for binding in bindings:
        if isinstance(binding, Binding) and binding.description and not binding.system:
            yield key_names(binding.key), binding.description


def _worth_a_line(bindings: Iterable[BindingType]) -> Iterator[Binding]:
    for binding in bindings:
        if (
            isinstance(binding, Binding)
            and binding.action.startswith(_TEXT_FIELD)
            and "select" not in binding.description
        ):
            yield binding
