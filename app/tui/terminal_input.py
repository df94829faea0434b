"""What the terminal sends, as Textual's messages: no byte is an error, and nothing of a pasted text is a key."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

from textual import constants
from textual._time import get_time
from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.events import Key, Paste
from textual.keys import Keys
from textual.message import Message

from specee.app.text_input import AS_WESTERN

MARK_SECONDS = 0.5  # in which the rest of a mark comes; Esc alone is a key sooner
STALL_SECONDS = 2.0  # a paste that stands still for so long is over: its end was lost
CHARACTER_SECONDS = 0.5  # in which the rest of a character comes
LARGE = 1024  # characters at once that nobody types
SOME = 16  # characters at once that may be typed ahead
BEHIND = 0.05  # seconds within which a text that is pasted goes on

_NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ACTS = "[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f]"  # a key with Ctrl, but for those that write or begin a sequence
_ACTING = re.compile(_ACTS)
_ACTING_IN_TEXT = re.compile(rf"[^\x00-\x1f\x7f]{_ACTS}+[^\x00-\x1f\x7f]")

_ALT_DIGIT = re.compile("\x1b[0-9]")


class InputDecoder:
    """UTF-8; bytes that are none are read as Windows-1252."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(AS_WESTERN)
        self._last = 0.0

    def decode(self, data: bytes) -> str:
        """The characters that are whole."""
        self._last = get_time()
        return self._decoder.decode(data)

    def tick(self) -> str:
        """A character whose rest does not come, as the bytes that came. To be called when nothing has come."""
        return self._decoder.decode(b"", True) if get_time() - self._last >= CHARACTER_SECONDS else ""


class InputParser(XTermParser):
    """Textual's parser for all but pastes, of which it takes escape sequences for keys."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._paste: list[str] | None = None
        self._held = ""  # may begin the mark that is waited for
        self._last = 0.0
        self._bare = False  # the last that came was pasted, in a terminal that does not mark pastes

    def feed(self, data: str) -> Iterable[Message]:
        if not data:
            yield from super().feed(data)
            return
        now = get_time()
        goes_on, self._last = now - self._last < BEHIND, now
        data, self._held = self._held + data, ""
        if self._paste is None and self._is_bare_paste(data, goes_on):
            yield Paste(_text(data))
            return
        while data:
            if self._paste is None:
                before, mark, data = data.partition(BRACKETED_PASTE_START)
                if mark:
                    self._paste = []
                else:
                    before, self._held = _split(before, BRACKETED_PASTE_START)
                if before:
                    yield from super().feed(before)
                if mark:
                    yield from self._settle()
            else:
                text, mark, data = data.partition(BRACKETED_PASTE_END)
                if not mark:
                    text, self._held = _split(text, BRACKETED_PASTE_END)
                self._paste.append(text)
                if mark:
                    yield from self._end_paste()

    def tick(self) -> Iterable[Message]:
        yield from super().tick()
        silence = get_time() - self._last
        if self._paste is not None:
            if silence >= STALL_SECONDS:
                self._paste.append(self._held)
                self._held = ""
                yield from self._end_paste()
        elif self._held and silence >= (constants.ESCAPE_DELAY if len(self._held) == 1 else MARK_SECONDS):
            held, self._held = self._held, ""
            yield from super().feed(held)
            yield from self._settle()

    def _settle(self) -> Iterable[Message]:
        """What was begun is all that comes of it."""
        if self._timeout_time is not None:
            self._timeout_time = 0.0
            yield from super().tick()

    def parse_mouse_code(self, code: str) -> Message | None:
        if any(size is not None and 0 in tuple(size) for size in (self.terminal_size, self.terminal_pixel_size)):
            self.terminal_pixel_size = None  # a terminal that does not know its size in pixels counts cells
        return super().parse_mouse_code(code)

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        """Alt with a digit has a name; Textual takes it for the sign that some keyboards have there."""
        for event in super()._sequence_to_key_events(sequence, alt):
            yield Key(f"alt+{sequence[1]}", event.character) if _ALT_DIGIT.fullmatch(sequence) else event

    def _parse_extended_key(self, sequence: str) -> list[Key] | None:  # type: ignore[override] # theirs has a cache
        try:
            return super()._parse_extended_key(sequence)
        except ValueError:  # of a character that there is not
            return [Key(Keys.Ignore, sequence)]

    def _end_paste(self) -> Iterable[Message]:
        text, self._paste = _text("".join(self._paste or ())), None
        if text:
            yield Paste(text)

    def _is_bare_paste(self, data: str, goes_on: bool) -> bool:
        """Whether keys with Ctrl are part of a text that comes at once, and so no keys."""
        if BRACKETED_PASTE_START in data:
            self._bare = False
        elif not (goes_on and self._bare):
            found = (_ACTING if len(data) >= LARGE else _ACTING_IN_TEXT).search(data)
            self._bare = found is not None and len(data) >= SOME
        return self._bare


def _split(text: str, mark: str) -> tuple[str, str]:
    """The text without the beginning of `mark` that it may end with, and that."""
    for length in range(len(mark) - 1, 0, -1):
        if text.endswith(mark[:length]):
            return text[:-length], mark[:length]
    return text, ""


def _text(pasted: str) -> str:
    return _NOT_TEXT.sub("", pasted.replace("\r\n", "\n").replace("\r", "\n"))
