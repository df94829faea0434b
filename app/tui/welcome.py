"""What stands above the prompt until something is written: what runs here, and what to do first, or the last chat."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path

from textual.content import Content

from specee.app.chat.history.records import Chat
from specee.app.engine.protocol import ModelInfo
from specee.app.formatting import size, visible
from specee.app.tui.lines import Lines
from specee.models.resolve import EMBEDDED
from specee.native import cpu

QUESTIONS = (
    "Why is the sky blue?",
    "Write a short poem about rain.",
    "What is a list in Python? Give an example.",
)
KEYS = ("Alt+1", "Alt+2", "Alt+3")
"""Each asks one of them. No plain digits: those begin questions, too."""
TINY = "It comes with specee-chat and is tiny: quick, but it knows little and errs often."
BETTER = "shows better ones for this PC"
OTHERS = 14
"""Lines that all else needs; with fewer left it is not shown."""
WIDE, SIDEBAR = 100, 30
"""Columns from which the list of chats is always there, and its columns."""
_NOISE = re.compile(r"\(R\)|\(TM\)| CPU(?= )| @ .*| \d+-Core Processor.*| (?:with|w/) .*")
"""In names of processors."""
_FEATURES = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX512",
    "avx2": "AVX2",
    "sve": "SVE",
    "asimddp": "NEON dot product",
}
"""Of processors, the fastest first: those that the kernels have forms for."""


class Welcome(Lines):
    """A few lines, of which each does something at a key or a click."""

    DEFAULT_CSS = """
    Welcome { height: auto; padding: 0 1; display: none; border-left: thick $primary-muted; }
    """

    def __init__(self, taken: Callable[[], int]) -> None:
        """`taken`: lines that the suggestions of a first start have."""
        super().__init__()
        self._taken = taken
        self._last: Chat | None = None
        self._n_chats = 0
        self._info: ModelInfo | None = None
        self._rate: float | None = None
        self._wanted = False

    def begin(self, chats: Sequence[Chat]) -> None:
        """Appears; `chats`: those that are kept, the last one first."""
        self._last, self._n_chats, self._wanted = chats[0] if chats else None, len(chats), True
        self.draw()

    def tell(self, info: ModelInfo | None = None, rate: float | None = None) -> None:
        """The model that was loaded, or the tokens a second to expect of it."""
        self._info, self._rate = info or self._info, rate or self._rate
        self.draw()

    def hide(self) -> None:
        """Goes, for good."""
        self._wanted = self.display = False
        self.app.set_class(False, "-welcome")

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        """As there is room for it: it must not push the prompt off the screen."""
        lines = self._lines()
        columns = self.app.size.width  # its own are those of the last layout, which may be of another screen
        width = max(1, columns - (SIDEBAR if columns >= WIDE else 0) - 3)
        height = sum(ceil(line.cell_length / width) for line in lines)
        self.display = self._wanted and self.app.size.height >= OTHERS + height + self._taken()
        self.app.set_class(self._wanted, "-welcome")  # no answer yet: no view of one
        if self.display:
            self.show_lines(lines)

    def _lines(self) -> list[Content]:
        lines = [Content.styled(what_runs(self._info, self._rate), "bold")] if self._info is not None else []
        if self._info is not None and self._info.name == EMBEDDED:
            lines.append(Content.from_markup(f"{TINY} [@click=app.command('/model')][b]F3[/b] {BETTER}[/]"))
        if self._last is not None:
            title = " ".join(visible(self._last.title or "(no title)").split())
            lines.append(_key("app.last_chat", "Ctrl+O", f"goes on with your last chat: {title}"))
            if self._n_chats > 1:
                lines.append(_key("app.sidebar", "Ctrl+B", "lists all of them; Ctrl+F searches in them"))
        else:
            lines.append(
                Content("To try it: a key asks; ") + Content.styled("Tab", "bold") + Content(" only writes a question")
            )
            lines += [_key(f"app.try_question({at})", KEYS[at], text) for at, text in enumerate(QUESTIONS)]
        return [*lines, _OF_ALL]


def what_runs(info: ModelInfo, rate: float | None) -> str:
    """The model, the machine, and what to expect, in a line."""
    try:
        shown = f"{info.name} ({size(Path(info.path).stat().st_size)})"
    except OSError:
        shown = info.name
    threads = f"{info.threads} thread{'s' if info.threads > 1 else ''}"
    expected = f"about {rate:.{0 if rate >= 10 else 1}f} tokens/s" if rate else ""
    features = [name for flag, name in _FEATURES.items() if flag in cpu.matrix_flags()]
    processor = _NOISE.sub("", cpu.processor_name()).strip()
    where = f"{processor}{f' ({features[0]})' if features else ''}"
    return " · ".join(part for part in (f"{shown} answers", expected, threads, where) if part)


_OF_ALL = Content("  ").join(
    Content.from_markup(f"[@click=app.{action}][b]{key}[/b] {text}[/]")
    for key, text, action in (
        ("Ctrl+P", "all commands", "command_palette"),
        ("F1", "all keys", "command('/keys')"),
        ("F4", "settings", "command('/settings')"),
        ("F8", "personas", "command('/persona')"),
    )
)


def _key(action: str, key: str, text: str) -> Content:
    return Content.from_markup(f"  [@click={action}][b]{key}[/b] $text[/]", text=text)
