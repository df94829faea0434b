"""What is to be answered: the text of -p with its attached files, and what comes in through a pipe."""

from __future__ import annotations

import os
import select
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specee.app.errors import USAGE, AppError

if TYPE_CHECKING:
    from specee.app.chat.attachments import Attachment

PATIENCE_SECONDS = 3.0  # without a word, so long; a forgotten terminal or service may never end its pipe
PIPE = "standard input"
STANDARD_INPUT = "-"  # as the text of -p


@dataclass(frozen=True)
class PromptText:
    """`text`, and the texts that are `attached` to it: of `files`, and of a pipe.

    `doubts`: what the user should know of how they were read.
    """

    text: str
    attached: str
    files: list[Attachment]
    doubts: list[str]


def on_a_terminal() -> bool:
    """Whether somebody sits there who can use the screen."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def cannot_draw() -> bool:
    """Whether the terminal is one of lines only."""
    return os.name == "posix" and os.environ.get("TERM", "") in ("", "dumb", "unknown")


def read_prompt(given: str | None) -> PromptText:
    """The text to answer: that of -p (- is none), its files, then what comes through a pipe, where an @ means nothing.

    Raises AppError.
    """
    from specee.app.chat.attachments import attach
    from specee.app.text_input import argument, decode

    if given == STANDARD_INPUT:
        given = ""
        if sys.stdin.isatty():
            raise AppError("nothing to answer", "-p - takes what comes in through a pipe; give -p TEXT", USAGE)
    if given is None and sys.stdin.isatty():
        raise AppError("no terminal", "the screen needs a terminal; for one answer give -p TEXT", USAGE)
    attached, files = attach(given or "")
    own = argument(given or "", "the text of -p")
    piped = decode(b"" if sys.stdin.isatty() else _piped(), PIPE)
    doubts = [own.doubt, *(file.doubt for file in files), piped.doubt]
    if not own.text.strip():
        text = piped.text
    else:
        text = own.text
        attached += f"\n\n{piped.text}" if piped.text.strip() else ""
    if not text.strip():
        raise AppError("nothing to answer", "the prompt is empty; give -p TEXT, or text on standard input", USAGE)
    return PromptText(text, attached, files, [doubt for doubt in doubts if doubt is not None])


def _may_come(fd: int) -> bool:
    """Whether somebody may still write what was waited for: not where there was never an end, as in /dev/kmsg."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _piped() -> bytes:
    from specee.app.text_input import LIMIT, too_large

    fd = sys.stdin.fileno()
    data = bytearray()
    patience: float | None = PATIENCE_SECONDS
    while len(data) <= LIMIT:
        try:
            if os.name == "posix" and not select.select([fd], [], [], patience)[0]:
                if not _may_come(fd):
                    raise AppError(
                        "cannot read standard input",
                        "it has no end; < /dev/null does without",
                        USAGE,
                    )
                print("specee-chat: waiting for the end of standard input; < /dev/null does without", file=sys.stderr)
                patience = None
                continue
            piece = os.read(fd, 1 << 16)
        except BlockingIOError:  # another reader of the same pipe was faster
            continue
        except OSError as error:
            raise AppError("cannot read standard input", f"{error.strerror or error}", USAGE) from error
        if not piece:
            return bytes(data)
        data += piece
    raise too_large(PIPE)
