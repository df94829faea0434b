"""The prompt, and the commands that complete what is written in it."""

from __future__ import annotations

from collections.abc import Mapping

from textual import events
from textual.message import Message
from textual.widgets import Static, TextArea


class PromptInput(TextArea):
    """Enter sends, Ctrl+J begins a new line, Up in an empty prompt edits the last question, Tab completes a command."""

    DEFAULT_CSS = """
    PromptInput { height: auto; min-height: 3; max-height: 8; }
    """

    class Submitted(Message):
        """The user sent a question or a command."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class EditLast(Message):
        """The user wants to change the last question."""

    class DialTurned(Message):
        """`[` or `]` in an empty prompt."""

        def __init__(self, direction: int) -> None:
            super().__init__()
            self.direction = direction

    def __init__(self, commands: Mapping[str, str] | None = None) -> None:
        super().__init__(placeholder="Ask something", show_line_numbers=False, soft_wrap=True, compact=False)
        self._commands = commands or {}
        self.turns_dial = False
        """Whether brackets in an empty prompt change the threshold, as the view `dial` says."""

    async def _on_key(self, event: events.Key) -> None:
        if not self._handle_key(event.key, event.character):
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    def _handle_key(self, key: str, character: str | None) -> bool:
        """Handles a key of ours; False when it is none."""
        if key == "enter":
            self._submit()
        elif key in ("ctrl+j", "shift+enter"):
            self.insert("\n")
        elif key == "up" and not self.text:
            self.post_message(self.EditLast())
        elif key == "tab" and self.text.startswith("/"):
            self._complete()
        elif self.turns_dial and not self.text and character in ("[", "]"):
            self.post_message(self.DialTurned(1 if character == "]" else -1))
        else:
            return False
        return True

    def write(self, text: str) -> None:
        """Replaces the text; the cursor stands at its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def completions(self) -> list[str]:
        """The commands that begin with what is written."""
        return [name for name in self._commands if self.text.startswith("/") and name.startswith(self.text)]

    def _complete(self) -> None:
        found = self.completions()
        if found:
            self.write(found[0] + (" " if len(found) == 1 else ""))

    def _submit(self) -> None:
        text = self.text.strip()
        if text:
            self.post_message(self.Submitted(text))
            self.clear()


class Suggestions(Static):
    """The commands that complete what is written, above the prompt."""

    DEFAULT_CSS = """
    Suggestions { height: auto; max-height: 6; padding: 0 1; color: $text-muted; display: none; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)

    def show(self, names: list[str], commands: Mapping[str, str]) -> None:
        if not names and not self.display:
            return  # most keys
        self.display = bool(names)
        self.update("\n".join(f"{name:12} {commands[name]}" for name in names[:6]))
