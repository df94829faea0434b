"""The prompt, and the commands that complete what is written in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Static, TextArea

from specee.app.formatting import visible

Completions = Callable[[str], Mapping[str, str]]
AT_ONCE = 0.01  # seconds; keys that come closer are pasted, in a terminal that does not say so
SHOWN = 6  # completions at once
PASTE_ENDS = 0.05  # an Enter with nothing behind it for so long sends what was pasted


class PromptInput(TextArea):
    """Enter sends, Ctrl+J begins a new line, Up in an empty prompt edits the last question, Tab completes a command.

    A text that is pasted stays one, whatever keys it is made of.
    """

    DEFAULT_CSS = """
    PromptInput { height: auto; min-height: 3; max-height: 8; min-width: 8; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+underscore,ctrl+slash", "undo", "Undo", show=False),  # Ctrl+Z suspends
    ]

    class Submitted(Message):
        """The user sent a question or a command; a space stands before a question that begins with /."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class EditLast(Message):
        """The user wants to change the last question."""

    class Left(Message):
        """Ctrl+D in an empty prompt."""

    class ThresholdTurned(Message):
        """`[` or `]` in an empty prompt."""

        def __init__(self, direction: int) -> None:
            super().__init__()
            self.direction = direction

    def __init__(self, completions: Completions = lambda text: {}) -> None:
        """`completions`: the lines that what is written may become, each with its help."""
        super().__init__(placeholder="Ask something", show_line_numbers=False, soft_wrap=True, compact=False)
        self._completions = completions
        self.turns_threshold = False
        """Whether brackets in an empty prompt change the threshold, as the view `threshold` says."""
        self._last_key = 0.0
        self._pasted_enter = False  # the last key was an Enter that may be a pasted line end

    async def _on_key(self, event: events.Key) -> None:
        since, self._last_key = event.time - self._last_key, event.time
        if self._pasted_enter:
            if since > PASTE_ENDS:
                self._submit_pasted()
            self._pasted_enter = False
        if not self._handle_key(event.key, event.character, pasted=since < AT_ONCE):
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    def _handle_key(self, key: str, character: str | None, *, pasted: bool) -> bool:
        """Handles a key of ours; False when it is none."""
        if key == "enter" and pasted:
            self.insert("\n")
            self._pasted_enter = True
            self.set_timer(PASTE_ENDS, self._submit_pasted)
        elif key == "enter":
            self._submit()
        elif key in ("ctrl+j", "shift+enter"):
            self.insert("\n")
        elif key == "up" and not self.text:
            self.post_message(self.EditLast())
        elif key == "tab" and self.completions():
            self._complete()
        elif key == "tab" and pasted:
            self.insert("\t")
        elif key == "ctrl+d" and not self.text:
            self.post_message(self.Left())
        elif self.turns_threshold and not self.text and character in ("[", "]"):
            self.post_message(self.ThresholdTurned(1 if character == "]" else -1))
        else:
            return False
        return True

    def write(self, text: str) -> None:
        """Replaces the text; the cursor stands at its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def restore(self, text: str) -> None:
        """Puts a text back that was not taken, before what was typed meanwhile."""
        self.write(f"{text}\n{self.text}" if self.text else text)

    def completions(self) -> Mapping[str, str]:
        """The commands that begin with what is written, or what may follow one, each with its help."""
        return self._completions(self.text) if self.text.startswith("/") else {}

    def _complete(self) -> None:
        """Writes as much as all completions have in common, or else the first of them."""
        found = list(self.completions())
        common = _common_beginning(found)
        if len(found) == 1:
            self.write(f"{found[0]} " if " " not in found[0] else found[0])
        elif found:
            self.write(common if len(common) > len(self.text) else found[0])

    def _submit(self) -> None:
        text = self.text.rstrip()
        if text:
            self.post_message(self.Submitted(text))
            self.clear()

    def _submit_pasted(self) -> None:
        if self._pasted_enter:
            self._pasted_enter = False
            self._submit()


def _common_beginning(lines: list[str]) -> str:
    first, last = min(lines, default=""), max(lines, default="")
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


class Suggestions(Static):
    """What completes what is written, above the prompt."""

    DEFAULT_CSS = """
    Suggestions { height: auto; max-height: 6; padding: 0 1; color: $text-muted; display: none; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)

    def show(self, completions: Mapping[str, str]) -> None:
        if not completions and not self.display:
            return  # most keys
        self.display = bool(completions)
        shown = {visible(line): words for line, words in islice(completions.items(), SHOWN)}
        width = max(map(len, shown), default=0)
        self.update("\n".join(f"{line:{max(12, width)}} {words}" for line, words in shown.items()))
