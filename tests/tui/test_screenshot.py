"""The README's picture of messages shows the screen as it is."""

from __future__ import annotations

import html
import re

from screenshot import MESSAGES, take_messages


def words(svg: str) -> str:
    """What can be read in a picture, without its colours, which the theme may change."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", svg, flags=re.DOTALL)).split())


async def test_the_picture_of_messages_is_current() -> None:
    now = words(await take_messages())
    assert now == words(MESSAGES.read_text("utf-8")), "python tests/tui/screenshot.py makes the pictures anew"
