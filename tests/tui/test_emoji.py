"""Emoji of several characters: whatever a terminal makes of them, what follows stands where it should."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len
from textual.drivers.linux_driver import LinuxDriver

from specee.app.tui.emoji import CLUSTER, anchored
from specee.app.tui.unix_driver import UnixDriver
from specee.app.tui.wrapping import breaks

FAMILY, FLAG, ROCKET = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\U0001f680"
WAVE, HEART, KEYCAP = "\U0001f44b\U0001f3fd", "\u2764\ufe0f", "1\ufe0f\u20e3"


def column(output: str) -> int:
    """Where the cursor is at the end, in a terminal that joins nothing: each character has its own width."""
    at = saved = 0
    for part in re.findall(r"\x1b7|\x1b8|\x1b\[\d+C|.", output, re.DOTALL):
        if part == "\x1b7":
            saved = at
        elif part == "\x1b8":
            at = saved
        elif part.startswith("\x1b["):
            at += int(part[2:-1])
        elif part not in "\u200d\ufe0f\u20e3":
            at += 2 if ord(part) > 0x1F000 else 1
    return at


@pytest.mark.parametrize("emoji", [FAMILY, FLAG, WAVE, HEART, KEYCAP])
def test_what_follows_is_where_it_should_be_in_a_terminal_that_joins_nothing(emoji: str) -> None:
    assert column(anchored(f"a{emoji}b")) == 1 + cell_len(emoji) + 1


def test_what_the_screen_writes_is_anchored(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(LinuxDriver, "write", lambda self, data: written.append(data))
    monkeypatch.setattr(UnixDriver, "_can_write", lambda self: True)
    UnixDriver.write(object.__new__(UnixDriver), f"a{FAMILY}")
    assert written == [anchored(f"a{FAMILY}")] != [f"a{FAMILY}"]


def test_nothing_else_is_touched() -> None:
    for text in ("plain", "1234 #*", ROCKET, "\u65e5\u672c", "e\u0301", "\u00a9 \u2764", "\x1b[31mred\x1b[0m"):
        assert anchored(text) == text


def test_lines_are_not_broken_within_an_emoji() -> None:
    text = FAMILY * 5
    assert CLUSTER.findall(text) == [FAMILY] * 5
    assert breaks(text, 4) == [2 * len(FAMILY), 4 * len(FAMILY)]
