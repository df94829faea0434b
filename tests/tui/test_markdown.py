"""Markdown as lines, and answers that grow."""

from __future__ import annotations

import random

import pytest

from specee.app.chat.markdown_source import code_blocks
from specee.app.tui import markdown
from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.markdown import is_open_fence
from specee.app.tui.table import fit
from specee.app.tui.wrapping import Block, breaks, wrap

MIXED = """# Title

Some **bold** and `code` with [a link](http://x.y), ~~gone~~,
a second line that is long, so that it must wrap somewhere because a screen is not as wide as that. Then $E = mc^2$,
prices ($5 or $10), \\(\\frac{\\alpha}{2}\\) and a family (\U0001f468\u200d\U0001f469\u200d\U0001f467),
with a flag \U0001f1e9\U0001f1ea.

- one
- two with a lot of text that must be wrapped somewhere, and goes on for some time
  - nested
    1. deep
- three

  a paragraph in three

3. third
4. fourth

> quote **b**
> > inner
> - list

```python
def f(x):
    return "a very long line that does not fit into the narrow screens at all and must be folded " + x
```

| a | b | c |
|---|---|---|
| 1 | some text that must wrap because it is far too long for a narrow screen | 3 |
| `x` | 2 | |

---
<b>html</b> &amp; \\* escaped, 日本語のテキスト, tab\there

    indented code
"""
CODE = "```python\n" + "\n".join(f"def f{n}(x):\n    return x + {n}\n" for n in range(80)) + "\n```\n"
FORMULAS = "Then:\n\n$$\nx_1 = \\frac{a+b}{2}\n$$\n\nand \\(y\\)\n\n\\[\nE = mc^2\n\\]\nthat\n\n- $z$\n" * 3
LONG = " ".join(f"word{n}" if n % 37 else f"**bold{n} two** and `code{n}`" for n in range(1500))
LIST = "\n".join(f"{n}. item {n} with *em*" for n in range(1, 200))


def lay_out(source: str, width: int = 60, *, plain: bool = False) -> AnswerEntry:
    answer = AnswerEntry(source)
    answer.lay_out(width, plain=plain)
    return answer


def shown(answer: AnswerEntry) -> list[str]:
    return [line.plain.rstrip() for line in answer.lines]


def test_what_markdown_becomes() -> None:
    text = "\n".join(shown(lay_out(MIXED)))
    assert "Some bold and code with a link (http://x.y), gone," in text
    assert "• two with a lot" in text and "\n  ◦ nested\n    1. deep\n• three\n\n  a paragraph in three" in text
    assert "\n3. third\n4. fourth\n" in text and "\n▎ quote b\n▎\n▎ ▎ inner\n▎ • list\n" in text
    assert "\n def f(x):\n" in text and "\n─" in text and "<b>html</b> & * escaped" in text
    assert "`code`" in "\n".join(shown(lay_out(MIXED, plain=True)))  # without colours


@pytest.mark.parametrize("width", [8, 20, 60, 120])
def test_nothing_is_wider_than_the_screen(width: int) -> None:
    wide = [line for line in lay_out(MIXED, width).lines if (line.prefix + line.text).cell_length > width]
    assert not wide or width < 20  # a table has a least width


@pytest.mark.parametrize("text", [MIXED, CODE, LONG, LIST, FORMULAS, f"{MIXED}\n{CODE}\n{LONG}\n\n{LIST}"])
@pytest.mark.parametrize("width", [30, 100])
def test_an_answer_that_grows_looks_as_if_it_came_at_once(text: str, width: int) -> None:
    rng = random.Random(width)
    growing, at = lay_out("", width), 0
    while at < len(text):
        step = rng.randint(1, 80)
        changed = growing.append(text[at : at + step])
        at += step
        assert 0 <= changed <= len(growing.lines)
    whole = lay_out(text, width)
    assert [(line.plain, line.joint, line.style) for line in growing.lines] == [
        (line.plain, line.joint, line.style) for line in whole.lines
    ]
    assert growing.finish(text) == (CODE in text or text == FORMULAS), "only a mark above long code is added"


@pytest.mark.parametrize("text", [CODE * 4, LONG * 4, LIST * 3, MIXED * 10])
def test_final_lines_are_not_parsed_again(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, characters = markdown.read, 0

    def counted(source: str, width: int, *, plain: bool = False) -> list[markdown.Unit]:
        nonlocal characters
        characters += len(source)
        return read(source, width, plain=plain)

    monkeypatch.setattr(markdown, "read", counted)
    growing = lay_out("")
    for at in range(0, len(text), 50):
        growing.append(text[at : at + 50])
    flushes = len(text) / 50
    assert characters / flushes < 6000, "each flush reads about as much, however long the answer is"


def test_links_that_are_defined_at_the_end_are_read_anew() -> None:
    text = "See [there].\n\nMore.\n\n[there]: http://x.y\n"
    growing = lay_out("")
    for part in (text[:20], text[20:]):
        growing.append(part)
    assert growing.finish(text) and "See there (http://x.y)." in shown(growing)


def test_copying_undoes_the_wrapping() -> None:
    lines = list(wrap(Block(lay_out("x").lines[0].text + " word" * 30 + " " + "y" * 50), 20))
    text = lines[0].plain + "".join(line.joint + line.plain for line in lines[1:])
    assert text == "x" + " word" * 30 + " " + "y" * 50


def test_words_are_broken_only_when_they_must() -> None:
    assert breaks("one two three", 7) == [8]
    assert breaks("abcdefghij", 4) == [4, 8] and breaks("日本語テ", 4) == [2] and breaks("fits", 4) == []


def test_fences() -> None:
    assert is_open_fence("```py\nx = 1\n") and is_open_fence("~~~~\n~~~\n") and is_open_fence("```")
    assert not is_open_fence("```py\nx\n```\nrest") and not is_open_fence("x\n```\n")
    assert code_blocks("a\n```py\nx\n\ny\n```\n- b\n  ~~~\n  z\n  ~~~\n") == ["x\n\ny", "z"]


def test_columns_of_a_table_share_the_room() -> None:
    assert fit([3, 50, 5], 30) == [4, 21, 5] and fit([5, 6], 100) == [5, 6] and sum(fit([90, 80, 70], 60)) == 60
