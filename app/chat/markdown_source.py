"""Markdown as models write it."""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt


@cache
def parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough."""
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def code_blocks(source: str) -> list[str]:
    """The code blocks of a text, in order."""
    return [token.content.rstrip("\n") for token in parser().parse(source) if token.type in ("fence", "code_block")]
