"""LaTeX formulas as one or more lines of Unicode: x², √(a+b), ∑ᵢ₌₁ⁿ. What is not known here stays as it was typed."""
# ruff: noqa: RUF001 - the signs are meant

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

from pylatexenc.latex2text import MacroTextSpec, fmt_math_text_style, get_default_latex_context_db
from pylatexenc.latexwalker import (
    LatexCharsNode,
    LatexEnvironmentNode,
    LatexGroupNode,
    LatexMacroNode,
    LatexMathNode,
    LatexNode,
    LatexSpecialsNode,
    LatexWalker,
)
from pylatexenc.latexwalker import get_default_latex_context_db as parsing_db
from pylatexenc.macrospec import MacroSpec

REMEMBERED = 4096  # formulas: a growing answer asks for the same ones again and again
LONGEST = 2000  # characters; a longer one is no formula
_UP = "0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWβγδθφχ′*−"
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵝᵞᵟᶿᵠᵡ′*⁻"
_DOWN = "0123456789+-=()aehijklmnoprstuvxβγρφχ−"
_LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ₋"
SCRIPTS = {"^": dict(zip(_UP, _RAISED, strict=True)), "_": dict(zip(_DOWN, _LOWERED, strict=True))}
SPACES = {",": " ", ";": " ", ":": " ", ">": " ", "!": "", " ": " ", "quad": "  ", "qquad": "    ", "enspace": " "}
IGNORED = {
    "left",
    "right",
    "middle",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "displaystyle",
    "textstyle",
    "limits",
    "nolimits",
    "hline",
    "nonumber",
    "notag",
}
TEXTS = {"text", "textrm", "textbf", "textit", "mathrm", "mathit", "mathsf", "mathtt", "mathbf", "operatorname"}
TEXTS |= {"boldsymbol", "bm", "boxed", "mbox", "underline", "textnormal", "phantom"}
ALPHABETS = {"mathbb": "doublestruck", "mathcal": "script", "mathscr": "script", "mathfrak": "fraktur"}
MARKS = {"bar": "\u0304", "overline": "\u0305", "hat": "\u0302", "widehat": "\u0302", "tilde": "\u0303"}
MARKS |= {"vec": "\u20d7", "dot": "\u0307", "ddot": "\u0308", "widetilde": "\u0303"}
FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac"}
OWN = {"le": "≤", "ge": "≥", "ne": "≠", "to": "→", "implies": "⟹", "iff": "⟺", "cdots": "⋯", "dots": "…", "ldots": "…"}
OWN |= {"cdot": "·", "lvert": "|", "rvert": "|", "vert": "|", "lVert": "‖", "rVert": "‖", "mid": "|", "colon": ":"}
OWN |= {"phi": "φ", "varphi": "φ", "epsilon": "ε", "varepsilon": "ε", "degree": "°", "prime": "′", "dotsc": "…"}
OWN |= {"{": "{", "}": "}", "%": "%", "$": "$", "#": "#", "&": "&", "_": "_", "|": "‖", "lbrace": "{", "rbrace": "}"}
OWN |= {"land": "∧", "lor": "∨", "lnot": "¬", "gets": "←", "longrightarrow": "⟶", "mapsto": "↦", "backslash": "\\"}
FUNCTIONS = (
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp lim limsup liminf max min sup inf "
)
FUNCTIONS += "det dim ker deg gcd arg Pr hom mod"
LINES = {"aligned", "align", "align*", "gather", "gather*", "gathered", "equation", "equation*", "split", "alignat*"}
MATRICES = {
    "matrix": ("", ""),
    "pmatrix": ("(", ")"),
    "bmatrix": ("[", "]"),
    "vmatrix": ("|", "|"),
    "cases": ("{ ", ""),
}
UNARY = set("∑∏∫∬∭∮∂∇√∞∀∃∄¬∅′°|‖…⋯∘(){}[]")
_PROSE = re.compile(r"[A-Za-z]{3,}|\s[A-Za-z]{2,}\s")
_OPERATORS = re.compile(r"[\\^_=<>]")


class _UnknownError(Exception):
    """Something that has no form here."""


@lru_cache(REMEMBERED)
def as_unicode(latex: str) -> str | None:
    """The formula (without what encloses it); None for what is not known, or is no formula but a text with prices."""
    if len(latex) > LONGEST or (_PROSE.search(latex) and not _OPERATORS.search(latex)):
        return None
    try:
        nodes, position, length = LatexWalker(latex, _parsing(), tolerant_parsing=False).get_latex_nodes()
        if position + length < len(latex):
            return None
        shown = _text(nodes)
    except Exception:  # the parser has several of its own, and none of them is about us
        return None
    lines = [
        re.sub(r" {2,}", lambda gap: gap[0][:4] if len(gap[0]) > 3 else " ", line).strip() for line in shown.split("\n")
    ]
    return "\n".join(line for line in lines if line) or None


@cache
def _parsing() -> Any:
    """What arguments macros have."""
    macros = [MacroSpec(name, "{") for name in (*TEXTS, *ALPHABETS, *MARKS)]
    macros += [MacroSpec(name, "{{") for name in (*FRACTIONS, "binom", "dbinom", "tbinom")]
    macros += [MacroSpec("tag", "{"), MacroSpec("pmod", "{"), MacroSpec("sqrt", "[{"), MacroSpec("not", "")]
    database = parsing_db()
    database.add_context_category("formulas", macros=macros, prepend=True)
    return database


@cache
def _symbols() -> dict[str, str]:
    """What a macro without arguments stands for."""
    known: dict[str, str] = {}
    for spec in get_default_latex_context_db().iter_macro_specs():
        text = spec.simplify_repl if isinstance(spec, MacroTextSpec) else None
        if isinstance(text, str) and text.strip() and "%" not in text:
            known.setdefault(spec.macroname, text)
    return known | {name: name for name in FUNCTIONS.split()} | OWN


def _text(nodes: Sequence[LatexNode]) -> str:
    """Nodes side by side. A sign that stands between two things gets spaces."""
    text = ""
    items = _items(nodes)
    for item in items:
        if isinstance(item, str) and item in SCRIPTS:
            text = text.rstrip(" ") + _script(item, _one(next(items, None)))
        else:
            text += _spaced(item)
    return text


def _items(nodes: Sequence[LatexNode]) -> Iterator[str | LatexNode]:
    """Characters one by one, and what is no character."""
    for node in nodes:
        if isinstance(node, LatexCharsNode):
            yield from re.sub(r"\s+", " ", node.chars)
        elif node is not None:
            yield node


def _one(item: str | LatexNode | None) -> str:
    """A single thing, as the script of another."""
    if item is None or (isinstance(item, str) and item == " "):
        raise _UnknownError
    if isinstance(item, str):
        return item
    return _text(item.nodelist) if isinstance(item, LatexGroupNode) else _node(item)


def _script(kind: str, text: str) -> str:
    text = text.strip().replace(" ", "") if kind == "_" or len(text) < 8 else text.strip()
    if kind == "^" and text in ("∘", "°"):
        return "°"
    known = SCRIPTS[kind]
    if text and all(character in known for character in text):
        return "".join(known[character] for character in text)
    return f"{kind}{text}" if len(text) == 1 else f"{kind}({text})"


def _spaced(item: str | LatexNode) -> str:
    if isinstance(item, str):
        return {"-": "−", "'": "′", "~": " "}.get(item, item)
    text = _node(item)
    if isinstance(item, LatexMacroNode):
        if text == "·" or (len(text) == 1 and unicodedata.category(text) == "Sm" and text not in UNARY):
            return f" {text} "
        if item.macro_post_space and text[-1:].isalpha() and len(text) > 1:
            return f"{text} "
    return text


def _node(node: LatexNode) -> str:
    if isinstance(node, LatexCharsNode):
        return _text([node])
    if isinstance(node, (LatexGroupNode, LatexMathNode)):
        return _text(node.nodelist)
    if isinstance(node, LatexMacroNode):
        return _macro(node)
    if isinstance(node, LatexSpecialsNode):
        return {"&": "", "~": " ", "''": "″", "``": "“"}.get(node.specials_chars) or (
            "" if node.specials_chars == "&" else _refuse()
        )
    if isinstance(node, LatexEnvironmentNode):
        return _environment(node)
    return _refuse()


def _refuse() -> str:
    raise _UnknownError


def _macro(node: LatexMacroNode) -> str:
    name = node.macroname
    arguments = (
        [_one(argument) if argument is not None else "" for argument in (node.nodeargd.argnlist or ())]
        if node.nodeargd
        else []
    )
    if name in FRACTIONS and len(arguments) == 2:
        return f"{_factor(arguments[0])}/{_factor(arguments[1])}"
    if name == "sqrt" and len(arguments) == 2:
        root = {"": "√", "3": "∛", "4": "∜"}.get(arguments[0]) or f"{_script('^', arguments[0])}√"
        return root + (arguments[1] if len(arguments[1]) == 1 or arguments[1].isalnum() else f"({arguments[1]})")
    if name.endswith("binom") and len(arguments) == 2:
        return f"C({arguments[0]}, {arguments[1]})"
    if name in TEXTS and arguments:
        return arguments[0]
    if name in ALPHABETS and arguments:
        return str(fmt_math_text_style(arguments[0], ALPHABETS[name]))
    if name in MARKS and arguments:
        return "".join(character + MARKS[name] for character in arguments[0])
    if name == "tag" and arguments:
        return f"  ({arguments[0]})"
    if name == "pmod" and arguments:
        return f" (mod {arguments[0]})"
    if name == "\\":
        return "\n"
    if name in SPACES:
        return SPACES[name]
    if name in IGNORED:
        return ""
    if any(arguments) or name not in (symbols := _symbols()):
        raise _UnknownError
    return symbols[name]


def _factor(text: str) -> str:
    """A numerator or denominator: in brackets, unless it is one thing."""
    text = text.strip()
    return text if re.fullmatch(r"∂?[^\W_]+[⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]*|√\(?[^()]*\)?|.", text) else f"({text})"


def _environment(node: LatexEnvironmentNode) -> str:
    name = node.environmentname
    if name in LINES:
        return "\n" + _text(node.nodelist) + "\n"
    if name not in MATRICES:
        raise _UnknownError
    opening, closing = MATRICES[name]
    rows: list[list[list[LatexNode]]] = [[[]]]
    for child in node.nodelist:
        if isinstance(child, LatexMacroNode) and child.macroname == "\\":
            rows.append([[]])
        elif isinstance(child, LatexSpecialsNode) and child.specials_chars == "&":
            rows[-1].append([])
        else:
            rows[-1][-1].append(child)
    between = ", " if name == "cases" else " "
    shown = (between.join(_text(cell).strip() for cell in row).strip() for row in rows)
    return opening + "; ".join(filter(None, shown)) + closing
