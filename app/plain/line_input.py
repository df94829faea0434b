"""Lines from a terminal or a pipe: editing, recall and completion by readline, where there is one; texts of several
lines between three quotes, or pasted."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

try:
    import readline
except ImportError:  # Windows
    readline = None  # type: ignore[assignment]

from specee.app.chat import file_completion
from specee.app.text_input import AS_WESTERN, typed

QUOTES = '"""'
PROMPT, MORE = ">>> ", "... "
PASTE_SECONDS = 0.02  # in which the rest of a paste comes
MOST_EDITED = 16_000  # characters of a text that is edited as a line
MOST_FILES = 100  # that a name may become


class LineInput:
    """What the user types. `completions`: the lines that a beginning may become, each with its help."""

    def __init__(self, completions: Callable[[str], Mapping[str, str]]) -> None:
        self._completions = completions
        self.is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._edits = readline if self.is_terminal else None
        self._found: list[str] = []
        self._prefill = self._begun = ""
        self._takes_lines = False  # whether a text of several lines can be edited
        if self._edits is not None:
            self._edits.set_auto_history(False)
            self._edits.set_completer_delims("")
            self._edits.set_completer(self._complete)
            # of readline, and of libedit
            self._edits.parse_and_bind("tab: complete")
            if "libedit" in (self._edits.__doc__ or ""):
                self._edits.parse_and_bind("bind ^I rl_complete")
            else:
                self._takes_lines = True
                self._edits.parse_and_bind("set enable-bracketed-paste off")

    def close(self) -> None:
        """readline forgets this object."""
        if self._edits is not None:
            self._edits.set_completer(None)
            self._edits.set_startup_hook(None)

    def read(self) -> str:
        """One text. Raises EOFError at the end, KeyboardInterrupt for Ctrl+C."""
        if begun := self._begun:
            self._begun = ""
            text = self._lines(begun, f"{len(begun)} characters are there")
            self.remember(text)
            return text
        is_ahead = self._is_ahead()
        text = self._line(PROMPT)
        if text.lstrip().startswith(QUOTES):
            return self._quoted(text.lstrip()[len(QUOTES) :])
        if not is_ahead and (pasted := self._rest_of_paste()):  # lines typed ahead are texts of their own
            text = self._lines(f"{text}\n{pasted}", "{} lines pasted")
        self.remember(text)
        return text

    def prefill(self, text: str) -> bool:
        """Begins the next line with a text that the user may change; False where that cannot be."""
        if self._edits is None or ("\n" in text and not self._takes_lines) or len(text) > MOST_EDITED:
            return False
        if self._is_ahead():
            return False
        self._prefill = text
        return True

    def begin(self, text: str) -> bool:
        """Makes a text the beginning of the next one, to be changed or at least to be dropped; False where nobody could
        do that."""
        if self.prefill(text):
            return True
        if not self.is_terminal or self._is_ahead():
            return False
        self._begun = text
        return True

    def remember(self, text: str) -> None:
        """The Up key finds it."""
        if self._edits is not None and text.strip():
            self._edits.add_history(text)

    @contextmanager
    def keeps_what_is_typed(self) -> Iterator[None]:
        """While something runs: what is typed waits for the next prompt.

        A terminal that edits lines itself cuts them at 4,095 bytes, and drops them when Ctrl+C comes.
        """
        if self._edits is None:
            yield
            return
        with _unbuffered(echo=True, flush=False):
            yield

    def confirm(self, question: str) -> bool:
        """Whether the user says yes; nobody does where there is no terminal."""
        if not self.is_terminal:
            return False
        try:
            return self._line(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            print()
            return False

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _is_ahead(self) -> bool:
        """Whether something is typed already, which would be taken for the end of what is written before it."""
        return self._edits is not None and bool(select.select([sys.stdin.fileno()], [], [], 0)[0])

    def _line(self, prompt: str) -> str:
        if not self.is_terminal:
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            return typed(line.rstrip("\r\n"))
        sys.stdout.flush()
        if (edits := self._edits) is None:
            return typed(input(prompt))
        prefill, self._prefill = self._prefill, ""
        edits.set_startup_hook(lambda: edits.insert_text(prefill))
        try:
            return typed(input(prompt))
        finally:
            edits.set_startup_hook(None)

    def _quoted(self, first: str) -> str:
        lines = [first]
        while not lines[-1].rstrip().endswith(QUOTES):
            try:
                lines.append(self._line(MORE))
            except EOFError:
                break
        lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
        text = "\n".join(lines).strip("\n")
        self.remember(text)
        return text

    def _lines(self, text: str, what: str) -> str:
        """More than can be edited came at once: it is one text, which the user may go on writing.

        `what`: what to say of it, with a place for the number of its lines.
        """
        while True:
            n_lines = text.count("\n") + 1
            print(f"{what.format(n_lines)}; Enter sends them, Ctrl+C drops them", file=sys.stderr)
            more = self._line(MORE)
            rest = self._rest_of_paste()
            if not more and not rest:
                return text
            text += "\n" + more + ("\n" + rest if rest else "")
            if not rest:
                return text

    def _rest_of_paste(self) -> str:
        """What stands in the terminal already; empty if nothing."""
        if self._edits is None:
            return ""
        with _unbuffered() as fd:
            data = b""
            while fd is not None and select.select([fd], [], [], PASTE_SECONDS)[0]:
                piece = os.read(fd, 1 << 16)
                if not piece or b"\x04" in piece:
                    break
                data += piece
        text = data.decode(sys.stdin.encoding or "utf-8", AS_WESTERN)
        return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")

    def _complete(self, text: str, state: int) -> str | None:
        if state == 0:
            self._found = list(self._completions(text)) or list(_files(text))
        return self._found[state] if state < len(self._found) else None


@contextmanager
def _unbuffered(*, echo: bool = False, flush: bool = True) -> Iterator[int | None]:
    """The terminal gives what is typed at once; None where that cannot be.

    `echo`: it shows that. `flush`: Ctrl+C drops what was typed before it.
    """
    try:
        import termios
    except ImportError:
        yield None
        return
    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
        changed = list(before)
        changed[3] &= ~(termios.ICANON | (0 if echo else termios.ECHO))
        changed[3] |= 0 if flush else termios.NOFLSH
        termios.tcsetattr(fd, termios.TCSANOW, changed)
    except termios.error:
        yield None
        return
    try:
        yield fd
    finally:
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)


def _files(line: str) -> Iterator[str]:
    """The lines with the file names that the last word may become, if it begins with an @."""
    if (begun := file_completion.begun(line)) is not None:
        at, name = begun
        for choice in file_completion.choices(name)[:MOST_FILES]:
            yield line[:at] + choice.reference
