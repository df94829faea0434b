"""The screen as text: the characters, a map of styles, and a description of each style."""

from __future__ import annotations

import colorsys
import os
import re
import time
from pathlib import Path
from typing import Any

from rich.color import Color
from rich.style import Style
from textual.pilot import Pilot

FOLDER = Path(__file__).parent / "snapshots"
REWRITE = "SPECEE_REWRITE_SNAPSHOTS"
HUES = ((20, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (195, "cyan"), (255, "blue"), (330, "magenta"))
ATTRIBUTES = ("bold", "dim", "italic", "underline", "strike", "reverse")
TIME = re.compile(r"\b\d\d:\d\d\b")  # of a message
TIMEOUT = 30.0  # seconds, for a screen that is drawn in several steps; machines may be slow
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def picture(app: Any) -> str:
    """The screen. A style has a letter, in the order of appearance; `.` is the one of most cells."""
    rows: list[list[tuple[str, str]]] = []
    for strip in app.screen._compositor.render_strips():
        cells = [(char, description(segment.style or Style())) for segment in strip for char in segment.text]
        rows.append(cells)
    kinds = [kind for row in rows for _, kind in row]
    letters = {max(set(kinds), key=kinds.count): "."}
    for kind in kinds:
        letters.setdefault(kind, LETTERS[len(letters) - 1])
    text = ["".join(char for char, _ in row).rstrip() for row in rows]
    styles = ["".join(letters[kind] for _, kind in row).rstrip(".") for row in rows]
    legend = [f"{letter} {kind}" for kind, letter in letters.items()]
    text = [TIME.sub("12:34", line) for line in text]
    return "\n".join([*text, "=" * 20, *styles, "=" * 20, *legend]) + "\n"


def description(style: Style) -> str:
    """A style by its hue and attributes. Not by its colours: those are the theme's, and change with its releases."""
    found = [name for name in ATTRIBUTES if getattr(style, name)]
    return " ".join([hue(style.color), "on", hue(style.bgcolor), *found])


def hue(color: Color | None) -> str:
    if color is None or color.is_default:
        return "default"
    red, green, blue = (part / 255 for part in color.get_truecolor())
    turn, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    if saturation < 0.2 or not 0.08 < light < 0.95:
        return "light" if light > 0.5 else "dark"
    return next((name for limit, name in HUES if 360 * turn < limit), "red")


def check(name: str, app: Any) -> None:
    """Compares the screen with the kept one; with the environment variable set, keeps it instead."""
    path, now = FOLDER / f"{name}.txt", picture(app)
    if os.environ.get(REWRITE):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(now, "utf-8")
        return
    assert path.exists(), f"no snapshot yet: {REWRITE}=1 keeps this one\n{now}"
    assert now == path.read_text("utf-8"), f"{REWRITE}=1 keeps the new one, if it is right"


async def check_soon(pilot: Pilot[Any], name: str) -> None:
    """The same for a screen that may not be drawn yet: waits until it is the kept one."""
    path, end = FOLDER / f"{name}.txt", time.monotonic() + (0.5 if os.environ.get(REWRITE) else TIMEOUT)
    while time.monotonic() < end and not (path.exists() and picture(pilot.app) == path.read_text("utf-8")):
        await pilot.pause(0.02)
    check(name, pilot.app)


async def check_sizes(pilot: Pilot[Any], name: str, sizes: dict[int, int]) -> None:
    """The same at several sizes, columns and lines; each has a picture of its own."""
    for columns, lines in sizes.items():
        await pilot.resize_terminal(columns, lines)
        await check_soon(pilot, name.format(columns))
