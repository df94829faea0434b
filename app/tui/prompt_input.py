"""The prompt, and what completes what is written in it: commands, and names of files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static, TextArea

from specee.app.chat import file_completion
from specee.app.chat.file_completion import FileChoice
from specee.app.formatting import visible
from specee.app.tui.pasted_text import LONG, PastedTexts

Completions = Callable[[str], Mapping[str, str]]
AT_ONCE = 0.01  # seconds; keys that come closer are pasted, in a terminal that does not say so
SHOWN = 6  # completions at once
PASTE_ENDS = 0.05  # an Enter with nothing behind it for so long sends what was pasted
PAUSE_SECONDS = 0.03  # without a key, after which the disk is asked for names of files


class PromptKey(NamedTuple):
    """Keys of the prompt, what they do, and the method that does it: it returns False where it does not apply."""

    keys: str
    help: str
    handle: Callable[[PromptInput, bool], bool]


class PromptInput(TextArea):
    """Enter sends, Ctrl+J begins a new line, Up in an empty prompt edits the last question, Tab completes a command or
    the name of a file.

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

    class Suggested(Message):
        """What may complete what is written: `lines` with their help, of which one is `chosen`; `note`: about files
        that it names."""

        def __init__(self, lines: Mapping[str, str], chosen: int | None = None, note: str = "") -> None:
            super().__init__()
            self.lines, self.chosen, self.note = lines, chosen, note

    class FilesFound(Message):
        """What the disk says of a text that was written."""

        def __init__(self, written: str, choices: Sequence[FileChoice], note: str) -> None:
            super().__init__()
            self.written, self.choices, self.note = written, choices, note

    def __init__(self, completions: Completions = lambda text: {}) -> None:
        """`completions`: the lines that what is written may become, each with its help."""
        super().__init__(placeholder="Ask something", show_line_numbers=False, soft_wrap=True, compact=False)
        self._completions = completions
        self.turns_threshold = False
        """Whether brackets in an empty prompt change the threshold, as the view `threshold` says."""
        self.tries: Sequence[str] = ()
        """Questions that Tab writes into an empty prompt, one after the other."""
        self._last_key = 0.0
        self._pasted_enter = False  # the last key was an Enter that may be a pasted line end
        self._pastes = PastedTexts()
        self._asking: asyncio.Task[None] | None = None  # the disk, for files
        self._files: Sequence[FileChoice] = ()  # that the name at the cursor may become
        self._file = 0  # the one that is chosen
        self._note = ""

    @property
    def content(self) -> str:
        """The text, with what was pasted into it."""
        return self._pastes.unfold(self.text)

    # ---- keys ------------------------------------------------------------------------------------------------------

    async def _on_key(self, event: events.Key) -> None:
        since, self._last_key = event.time - self._last_key, event.time
        if self._pasted_enter:
            if since > PASTE_ENDS:
                self._submit_pasted()
            self._pasted_enter = False
        if not self._handle_key(event.key, since < AT_ONCE):
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    def _handle_key(self, key: str, pasted: bool) -> bool:
        """Handles a key of ours; False when it is none."""
        return any(key in one.keys.split(",") and one.handle(self, pasted) for one in KEYS)

    def _enter(self, pasted: bool) -> bool:
        if pasted:
            self.insert("\n")
            self._pasted_enter = True
            self.set_timer(PASTE_ENDS, self._submit_pasted)
        elif not self._take_file(sends=True):
            self._submit()
        return True

    def _new_line(self, pasted: bool) -> bool:
        self.insert("\n")
        return True

    def _up(self, pasted: bool) -> bool:
        if self._files:
            self._choose_file(-1)
        elif not self.text:
            self.post_message(self.EditLast())
        else:
            return False
        return True

    def _down(self, pasted: bool) -> bool:
        if self._files:
            self._choose_file(1)
        return bool(self._files)

    def _tab(self, pasted: bool) -> bool:
        if self._take_file():
            return True
        if self.tries and self.text in ("", *self.tries):
            self.write(self.tries[(self.tries.index(self.text) + 1) % len(self.tries) if self.text else 0])
        elif self.completions():
            self._complete()
        elif pasted:
            self.insert("\t")
        else:
            return False
        return True

    def _leave(self, pasted: bool) -> bool:
        if not self.text:
            self.post_message(self.Left())
        return not self.text

    def _turn(self, direction: int) -> bool:
        turns = self.turns_threshold and not self.text
        if turns:
            self.post_message(self.ThresholdTurned(direction))
        return turns

    # ---- the text --------------------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Replaces the text, which can be undone; the cursor stands at its end."""
        self.replace(self._pastes.fold_again(text), (0, 0), self.document.end)
        self.move_cursor(self.document.end)

    def restore(self, text: str) -> None:
        """Puts a text back that was not taken, before what was typed meanwhile."""
        self.write(f"{text}\n{self.content}" if self.text else text)

    async def _on_paste(self, event: events.Paste) -> None:
        """Paths of files, as a terminal pastes those that are dropped on it, become references; a mark stands for a
        long text."""
        event.stop()
        event.prevent_default()
        self.paste(event.text)

    def paste(self, text: str) -> None:
        """Puts a text where the cursor is, in place of what is selected."""
        before = self.document[self.cursor_location[0]][: self.cursor_location[1]]
        if not self.text.startswith("/") and (references := file_completion.dropped(text)):
            text = references.removeprefix("@") if before.endswith("@") else references
            if before and not before[-1].isspace() and not before.endswith("@"):
                text = f" {text}"
        elif len(text) + sum(map(len, self.document.lines)) > LONG:
            text = self._pastes.fold(text)
        if result := self._replace_via_keyboard(text, *self.selection):
            self.move_cursor(result.end_location)

    # ---- completion ------------------------------------------------------------------------------------------------

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Commands are completed at once; names of files when the disk has answered, for which no key waits."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        self._files, self._file = (), 0
        if self.text.startswith("/") or "@" not in self.text:
            self._note = ""
        else:
            self._asking = asyncio.create_task(self._ask_disk(self.text, self._begun()))
        self._suggest()

    def _begun(self) -> tuple[int, str] | None:
        """Where the name of a file begins that is being written, and what of it is written."""
        row, column = self.cursor_location
        return file_completion.begun(self.document[row][:column])

    async def _ask_disk(self, written: str, begun: tuple[int, str] | None) -> None:
        await asyncio.sleep(PAUSE_SECONDS)

        def ask() -> tuple[Sequence[FileChoice], str]:
            found = file_completion.choices(begun[1]) if begun is not None else ()
            return found, file_completion.attached(written) if len(written) <= LONG else ""

        self.post_message(self.FilesFound(written, *await asyncio.to_thread(ask)))

    def on_prompt_input_files_found(self, message: FilesFound) -> None:
        message.stop()
        if message.written == self.text:
            self._files, self._note = message.choices, message.note
            if len(self._files) == 1 and self._files[0].reference == self._written_name():
                self._files = ()  # it is written already
            self._suggest()

    def _suggest(self) -> None:
        if self._files:
            first = max(0, min(self._file - SHOWN // 2, len(self._files) - SHOWN))
            shown = self._files[first : first + SHOWN]
            note = f"{self._note}\n" if self._note else ""
            more = len(self._files) - len(shown)
            note += "Tab takes one, Up and Down choose, Esc hides them" + (f"; {more} more" if more else "")
            self.post_message(self.Suggested({one.name: one.about for one in shown}, self._file - first, note))
        else:
            self.post_message(self.Suggested(self.completions(), None, self._note))

    def _written_name(self) -> str:
        """The name at the cursor as it is written, with its @."""
        row, column = self.cursor_location
        begun = self._begun()
        return self.document[row][begun[0] : column] if begun is not None else ""

    def _choose_file(self, step: int) -> None:
        self._file = (self._file + step) % len(self._files)
        self._suggest()

    def _take_file(self, *, sends: bool = False) -> bool:
        """Writes the chosen name; False where there is none, or where it is written already and Enter `sends`."""
        begun = self._begun()
        if not self._files or begun is None:
            return False
        choice = self._files[self._file]
        if sends and choice.reference == self._written_name():
            return False
        row, column = self.cursor_location
        result = self.replace(choice.reference + ("" if choice.is_folder else " "), (row, begun[0]), (row, column))
        self.move_cursor(result.end_location)
        return True

    def hide_files(self) -> bool:
        """Hides the names of files until something is written; returns whether there were any."""
        shown, self._files = bool(self._files), ()
        if shown:
            self._suggest()
        return shown

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
            self.post_message(self.Submitted(self._pastes.unfold(text)))
            self.clear()

    def _submit_pasted(self) -> None:
        if self._pasted_enter:
            self._pasted_enter = False
            self._submit()


def _common_beginning(lines: list[str]) -> str:
    first, last = min(lines, default=""), max(lines, default="")
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


KEYS = (
    PromptKey("enter", "send; in a list of file names: take one", PromptInput._enter),
    PromptKey("ctrl+j,shift+enter", "begin a new line", PromptInput._new_line),
    PromptKey(
        "tab", "complete a command or the name of a file; in a first chat: write a question to try", PromptInput._tab
    ),
    PromptKey("up", "in an empty prompt: edit the last question", PromptInput._up),
    PromptKey("down", "next name in a list of file names", PromptInput._down),
    PromptKey("ctrl+d", "in an empty prompt: quit", PromptInput._leave),
    PromptKey("right_square_bracket", "in the view threshold: a higher threshold", lambda prompt, _: prompt._turn(1)),
    PromptKey("left_square_bracket", "there: a lower one", lambda prompt, _: prompt._turn(-1)),
)
"""All that the prompt does itself, beside moving and writing."""


class Suggestions(Static):
    """What completes what is written, above the prompt."""

    DEFAULT_CSS = """
    Suggestions { height: auto; max-height: 8; padding: 0 1; color: $text-muted; display: none; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)

    def show(self, completions: Mapping[str, str], chosen: int | None = None, note: str = "") -> None:
        """`chosen`: the one that is marked; `note` stands above them."""
        if not completions and not note and not self.display:
            return  # most keys
        self.display = bool(completions or note)
        shown = [(visible(line), visible(words)) for line, words in list(completions.items())[:SHOWN]]
        width = max((cell_len(line) for line, _ in shown), default=0)
        lines = [Content(visible(note))] if note else []
        for at, (line, words) in enumerate(shown):
            mark = "" if chosen is None else "> " if at == chosen else "  "
            text = f"{mark}{set_cell_size(line, max(12, width))} {words}"
            lines.append(Content.styled(text, "bold $text") if at == chosen else Content(text))
        self.update(Content("\n").join(lines))
