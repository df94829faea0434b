"""Markdown as blocks of styled text.

Not Textual's Markdown widget: that is a widget a paragraph, and each flush of a long answer lays all of them out anew
(10,000 tokens: 275 ms). Here an answer is a list of lines, and text that cannot change any more is never read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markdown_it.token import Token
from textual.content import Content, Span
from textual.style import Style

from specee.app.chat.markdown_source import CLOSING, parser
from specee.app.tui.wrapping import CODE_HEAD, NOTHING, Block

BULLETS = "•◦▪"
CODE_CHUNK = 24  # lines of code that are highlighted together; a longer block is cut at a blank line, if there is one
QUOTE, CODE_INDENT = Content.styled("▎ ", "$text-muted"), Content(" ")
STYLES = {"strong": "bold", "em": "italic", "s": "strike", "link": "underline $text-primary"}
CODE_STYLE, HEADING_STYLE = "$text-warning", "bold $text-primary"
ADDRESS_STYLE = RULE_STYLE = "$text-muted"
LONGEST_NAME = 20  # of a language
FORMULA_STYLE, FORMULA_INDENT = "italic", "  "
CODE_ACTION, COPY_CODE, FOLD_CODE = "code", "copy", "fold"
"""What a click on a word above a code block does: a datum of its style, and its values."""
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class Formulas:
    """What the terminal of this process can show of them."""

    in_unicode = True


@dataclass(frozen=True)
class Unit:
    """What a parser sees as one: a top-level block, or one item of a top-level list. `line` is where it begins."""

    line: int
    blocks: tuple[Block, ...]
    gap: bool
    """Whether an empty line stands before it."""


def read(source: str, width: int, *, plain: bool = False) -> list[Unit]:
    """The units of a text. `plain`: no colours, so code in a line keeps its backticks."""
    tokens = parser().parse(source)
    units: list[Unit] = []
    at = 0
    while at < len(tokens):
        end = _end(tokens, at)
        token = tokens[at]
        if token.type in ("bullet_list_open", "ordered_list_open"):
            first = at + 1
            while first < end:
                last = _end(tokens, first)
                blocks = _Reader(width, plain).item(tokens[first : last + 1], 0)
                units.append(Unit(_line(tokens[first]), tuple(blocks), first == at + 1))
                first = last + 1
        else:
            units.append(Unit(_line(token), tuple(_Reader(width, plain).blocks(tokens[at : end + 1])), True))
        at = end + 1
    return units


def is_open_fence(source: str) -> bool:
    """Whether the text begins with a fence of code that has no end yet."""
    begun = _FENCE.match(source)
    if begun is None:
        return False
    end = re.compile(rf"^ {{0,3}}{re.escape(begun[1][0])}{{{len(begun[1])},}}\s*$", re.MULTILINE)
    return end.search(source, source.find("\n") + 1 or len(source)) is None


class _Reader:
    """Markdown tokens into blocks; `width` is for what is not text: rules and tables."""

    def __init__(self, width: int, plain: bool) -> None:
        self.width, self.plain = width, plain

    def blocks(self, tokens: Sequence[Token], indent: Content = NOTHING, depth: int = 0) -> list[Block]:
        """Blocks of a run of tokens that is balanced; `indent` stands before all of them."""
        found: list[Block] = []
        at = 0
        while at < len(tokens):
            end = _end(tokens, at)
            token, inner = tokens[at], tokens[at + 1 : end]
            if found and token.type not in ("bullet_list_open", "ordered_list_open"):
                found.append(Block(NOTHING, indent, indent))
            if token.type in ("bullet_list_open", "ordered_list_open"):
                first = 0
                while first < len(inner):
                    last = _end(inner, first)
                    found += self.item(inner[first : last + 1], depth, indent)
                    first = last + 1
            elif token.type == "blockquote_open":
                found += self.blocks(inner, indent + QUOTE, depth)
            elif token.type in ("fence", "code_block"):
                found += self._code(token, indent)
            elif token.type == "table_open":
                found += [Block(row, indent, indent) for row in self._table(inner)]
            elif token.type.startswith("math_block"):
                found += self._formula(token, indent)
            elif token.type == "hr":
                rule = Content.styled("─" * max(4, self.width - indent.cell_length), RULE_STYLE)
                found.append(Block(rule, indent, indent))
            elif token.type == "heading_open":
                found.append(Block(self._inline(inner[0]).stylize(HEADING_STYLE), indent, indent))
            elif inner:
                found.append(Block(self._inline(inner[0]), indent, indent))
            else:
                found.append(Block(Content(token.content.rstrip("\n")), indent, indent))
            at = end + 1
        return found

    def item(self, tokens: Sequence[Token], depth: int, indent: Content = NOTHING) -> list[Block]:
        """One item of a list, from its opening to its closing token."""
        opening = tokens[0]
        mark = f"{opening.info}{opening.markup} " if opening.info else BULLETS[depth % len(BULLETS)] + " "
        rest = indent + " " * len(mark)
        blocks = self.blocks(tokens[1:-1], rest, depth + 1) or [Block(NOTHING, rest, rest)]
        head = blocks[0]
        if head.marked:  # a list at once in a list
            return [Block(NOTHING, indent + mark, rest, marked=True), *blocks]
        return [Block(head.text, indent + mark, rest, head.style, marked=True), *blocks[1:]]

    def _code(self, token: Token, indent: Content) -> list[Block]:
        before = indent + CODE_INDENT
        language = token.info.split()[0] if token.info.strip() else ""
        lines: list[Content] = []
        for chunk in code_chunks(token.content.rstrip("\n").split("\n")):
            lines += highlighted(tuple(chunk), language)
        head = Block(code_head(language), before, before, CODE_HEAD)
        return [head, *(Block(line, before, before, "code", joint="\n" if at else "") for at, line in enumerate(lines))]

    def _formula(self, token: Token, indent: Content) -> list[Block]:
        """A formula that stands by itself."""
        shown = _shown_formula(token.content)
        text = f"{token.markup}{token.content}{CLOSING.get(token.markup, '')}" if shown is None else shown
        before = indent + FORMULA_INDENT
        style = FORMULA_STYLE if shown is not None else ""
        return [Block(Content.styled(text.strip("\n"), style), before, before)]

    def _table(self, tokens: Sequence[Token]) -> list[Content]:
        rows: list[list[Content]] = []
        for token in tokens:
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline":
                rows[-1].append(self._inline(token))
        from specee.app.tui.table import draw  # few answers have one

        return draw(rows, self.width)

    def _inline(self, token: Token) -> Content:
        text, spans, opened = "", [], []
        for child in token.children or ():
            kind = child.type
            if kind.endswith("_open"):
                opened.append((len(text), child))
            elif kind.endswith("_close") and opened:
                start, begun = opened.pop()
                spans.append(Span(start, len(text), STYLES.get(begun.type[:-5], "")))
                address = str(begun.attrGet("href") or "")
                if address and address not in (text[start:], f"mailto:{text[start:]}"):
                    spans.append(Span(len(text), len(text) + len(address) + 3, ADDRESS_STYLE))
                    text += f" ({address})"
            elif kind in ("softbreak", "hardbreak"):
                text += "\n"  # as the model wrote it
            elif kind == "code_inline":
                code = f"`{child.content}`" if self.plain else child.content
                spans.append(Span(len(text), len(text) + len(code), CODE_STYLE))
                text += code
            elif kind.startswith("math_inline"):
                formula, style = _formula_in_line(child)
                spans.append(Span(len(text), len(text) + len(formula), style))
                text += formula
            elif kind == "image":
                text += f"[{child.content or 'image'}] ({child.attrGet('src')})"
            else:
                text += child.content
        return Content(text.replace("\t", "    "), spans=[span for span in spans if span.style])


def _shown_formula(latex: str) -> str | None:
    """A formula without its LaTeX; None where it stays as it was typed."""
    from specee.app.tui.formula import as_unicode  # few answers have one

    shown = as_unicode(latex)
    if shown is None or Formulas.in_unicode:
        return shown
    shown = shown.replace("\u2212", "-")  # the sign minus
    return shown if shown.isascii() else None


def _formula_in_line(token: Token) -> tuple[str, str]:
    """A formula and its style; one that cannot be shown otherwise stays as it was typed."""
    shown = _shown_formula(token.content)
    if shown is None or "\n" in shown:
        return f"{token.markup}{token.content}{CLOSING.get(token.markup, token.markup)}", ""
    return shown, FORMULA_STYLE


def code_head(language: str, mark: str = "", note: str = "") -> Content:
    """The line above a code block: its language, and what a click does. `mark`: whether it is folded."""
    copy = Content.styled("copy", Style.from_meta({CODE_ACTION: COPY_CODE})).stylize("underline")
    fold = Content.styled(f"{mark}{language[:LONGEST_NAME] or 'code'}{note}", Style.from_meta({CODE_ACTION: FOLD_CODE}))
    return Content.assemble(fold, "  ", copy)


def code_chunks(lines: Sequence[str]) -> Iterable[list[str]]:
    """A code block in pieces that are highlighted on their own, the same ones however much of it is there yet."""
    chunk: list[str] = []
    for line in lines:
        if len(chunk) >= 2 * CODE_CHUNK or (len(chunk) >= CODE_CHUNK and not line.strip()):
            yield chunk
            chunk = []
        chunk.append(line)
    yield chunk


def highlighted(lines: tuple[str, ...], language: str) -> list[Content]:
    """Code with its colours, a line each."""
    text = Content("\n".join(lines).expandtabs(4))
    if language:
        from textual.highlight import highlight  # pygments: only when there is code

        text = highlight(text.plain, language=language)
    found = text.split(allow_blank=True)
    return list(found)[: len(lines)] or [NOTHING]


def _end(tokens: Sequence[Token], at: int) -> int:
    """The index of the token that closes this one; itself when it needs none."""
    depth = 0
    for index in range(at, len(tokens)):
        depth += tokens[index].nesting
        if depth <= 0:
            return index
    return len(tokens) - 1


def _line(token: Token) -> int:
    return token.map[0] if token.map else 0
