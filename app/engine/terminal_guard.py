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
FAREWELL = b"\r\nspecee-chat was ended from outside; nothing is lost: specee-chat -c goes on\r\n"
LOCAL_MODES = 3  # in termios attributes


@dataclass(frozen=True)
class Terminal:
    """The terminal as it was before the screen took it. `fd` is open for reading and writing, and is inherited."""

    fd: int
    attributes: list[Any]

    @classmethod
    def capture(cls) -> Terminal | None:
        """Of standard input; None where there is no such thing."""
        with suppress(ImportError, OSError, ValueError):
            import termios

            fd = os.open(os.ttyname(sys.stdin.fileno()), os.O_RDWR | os.O_NOCTTY)
            with suppress(termios.error):
                return cls(fd, termios.tcgetattr(fd))
            os.close(fd)
        return None

    def restore(self) -> None:
        """For the engine process, when the program has died and left its screen behind."""
        import termios

        with suppress(OSError, termios.error):
            # a shell that was quicker has modes of its own by now; only the screen takes signals from the keyboard away
            if not termios.tcgetattr(self.fd)[LOCAL_MODES] & termios.ISIG:
                termios.tcsetattr(self.fd, termios.TCSANOW, self.attributes)
            os.write(self.fd, LEAVE_SCREEN + FAREWELL)
