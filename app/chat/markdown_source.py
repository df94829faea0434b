"""Markdown as models write it."""

from __future__ import annotations

import re
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.dollarmath import dollarmath_plugin

CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
"""What ends a formula, by what begins it."""
_IN_LINE = re.compile(r"\\\((?P<round>(?:(?!\\\().)+?)\\\)|\\\[(?P<square>(?:(?!\\\[).)+?)\\\]", re.DOTALL)


@cache
def parser() -> MarkdownIt:
    r"""CommonMark with tables, strikethrough and formulas: $x$, $$x$$, \(x\) and \[x\]."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    markdown.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, allow_blank_lines=False)
    # not the plugin for brackets, which drops what follows a formula in its line
    markdown.inline.ruler.before("escape", "math_brackets", _brackets_in_line)
    markdown.block.ruler.before("fence", "math_brackets", _brackets, {"alt": ["paragraph"]})
    return markdown


def code_blocks(source: str) -> list[str]:
    """The code blocks of a text, in order."""
    return [token.content.rstrip("\n") for token in parser().parse(source) if token.type in ("fence", "code_block")]


def _brackets_in_line(state: StateInline, silent: bool) -> bool:
    r"""\(x\) within a text, or \[x\]."""
    found = _IN_LINE.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        token = state.push("math_inline", "math", 0)
        token.content = found["round"] or found["square"]
        token.markup = found[0][:2]
    state.pos = found.end()
    return True


def _brackets(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    r"""\[x\] in lines of its own, none of them empty."""
    if state.is_code_block(first) or not state.src.startswith(r"\[", state.bMarks[first] + state.tShift[first]):
        return False
    lines: list[str] = []
    for number in range(first, end):
        line = state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].rstrip()
        if not line or (lines and line.startswith(r"\[")):
            return False
        lines.append(line)
        if r"\]" in line:
            break
    text = "\n".join(lines)
    if not text.endswith(r"\]") or text.count(r"\]") > 1:
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.block, token.markup, token.content = True, r"\[", text[2:-2]
        token.map = [first, first + len(lines)]
        state.line = first + len(lines)
    return True
