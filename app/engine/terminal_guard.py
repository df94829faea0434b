"""The terminal is given back even when the program is killed: the engine process, which notices, does it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

# mouse, resize, focus, paste and keyboard reports off; colours, line wrap, the normal screen and the cursor back
LEAVE_SCREEN = (
    b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?2048l\x1b[?1004l\x1b[?2004l\x1b[<u\x1b[?2026l"
    b"\x1b[0m\x1b[?7h\x1b[?1049l\x1b[?25h"
)
FAREWELL = b"\r\nspecee-chat was killed; the chat is kept: specee-chat -c continues it\r\n"
LOCAL_MODES = 3  # in termios attributes


@dataclass(frozen=True)
class SavedTerminal:
    """The terminal as it was before the screen changed it. `fd` is open for reading and writing, and is inherited."""

    fd: int
    modes: tuple[int, ...]
    characters: tuple[int | bytes, ...]
    """Together what termios calls the attributes."""

    @classmethod
    def capture(cls) -> SavedTerminal | None:
        """The terminal of standard input; None where that is none."""
        with suppress(ImportError, OSError, ValueError):
            import termios

            fd = os.open(os.ttyname(sys.stdin.fileno()), os.O_RDWR | os.O_NOCTTY)
            with suppress(termios.error):
                *modes, characters = termios.tcgetattr(fd)
                return cls(fd, tuple(modes), tuple(characters))
            os.close(fd)
        return None

    def restore(self) -> None:
        """Leaves the screen and puts the modes back: for the engine process, when the program was killed."""
        import termios

        with suppress(OSError, termios.error):
            # a shell may have set modes of its own by now; only the screen turns the keyboard's signals off
            if not termios.tcgetattr(self.fd)[LOCAL_MODES] & termios.ISIG:
                attributes: list[Any] = [*self.modes, list(self.characters)]
                termios.tcsetattr(self.fd, termios.TCSANOW, attributes)
            os.write(self.fd, LEAVE_SCREEN + FAREWELL)
