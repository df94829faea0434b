"""LaTeX formulas on the screen; prices and code are none."""
# ruff: noqa: RUF001 - the signs are meant

from __future__ import annotations

import time

import pytest

from specee.app.tui.answer_entry import AnswerEntry
from specee.app.tui.formula import as_unicode


@pytest.mark.parametrize(
    ("latex", "shown"),
    [
        ("x^2", "x²"),
        ("a_{i+1}^{10}", "aᵢ₊₁¹⁰"),
        (r"E = mc^2", "E = mc²"),
        (r"\frac{a+b}{2}", "(a+b)/2"),
        (r"\frac12", "1/2"),
        (r"\sum_{i=1}^{n} i^2 = \frac{n(n+1)(2n+1)}{6}", "∑ᵢ₌₁ⁿ i² = (n(n+1)(2n+1))/6"),
        (r"\sqrt{x} + \sqrt[3]{a+b}", "√x + ∛(a+b)"),
        (r"\alpha \leq \beta, \Gamma \to \infty", "α ≤ β, Γ → ∞"),
        (r"\int_0^1 f(x)\,dx", "∫₀¹ f(x) dx"),
        (r"\lim_{x \to 0} \frac{\sin x}{x} = 1", "lim_(x→0) (sin x)/x = 1"),
        (r"\left( \mathbb{R}^n \right)", "( ℝⁿ )"),
        (r"90^\circ", "90°"),
        (r"\text{if } x \neq 0", "if x ≠ 0"),
        (r"e^{i\pi} + 1 = 0", "e^(iπ) + 1 = 0"),
        (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", "(1 0; 0 1)"),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "a = b\nc = d"),
        (r"\vec{v} \cdot \hat{n}", "v\u20d7 · n\u0302"),
        (r"O(n \log n)", "O(n log n)"),
        ("f'(x)", "f′(x)"),
        (r"\frac{\partial f}{\partial x}", "∂f/∂x"),
        (r"f(x) = \begin{cases} x & x > 0 \\ -x & \text{otherwise} \end{cases}", "f(x) = { x, x > 0; −x, otherwise"),
        (r"x = \frac{-b \pm \sqrt{b^2-4ac}}{2a}", "x = (−b ± √(b²−4ac))/2a"),
    ],
)
def test_what_a_formula_becomes(latex: str, shown: str) -> None:
    assert as_unicode(latex) == shown


@pytest.mark.parametrize(
    "latex", [r"\mystery{x}", r"\frac{a", "x^", "{{{", "5 and not", r"\begin{tikz}x\end{tikz}", "x" * 3000]
)
def test_what_is_not_known_stays_as_it_is(latex: str) -> None:
    assert as_unicode(latex) is None


def shown(source: str, width: int = 60) -> str:
    answer = AnswerEntry(source)
    answer.lay_out(width, plain=False)
    return "\n".join(line.plain.rstrip() for line in answer.lines)


def test_formulas_within_text_and_by_themselves() -> None:
    assert shown(r"So $x^2$, \(\alpha\) and \[y_1\] hold.") == "So x², α and y₁ hold."
    assert shown("Then:\n\n\\[\nE = mc^2\n\\]\n\nand\n\n$$\na_1\n$$\n") == "Then:\n\n  E = mc²\n\nand\n\n  a₁"
    assert shown("\\[ x \\] and more") == "x and more"
    assert shown("- a $\\pi$\n- | b") == "• a π\n• | b"
    assert shown("| a |\n|---|\n| $x^2$ |") == "a\n────\nx²"


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 or $10, $3.50 at least.",
        "From $5-$6 up to US$7, or (A$).",
        "A single $ and $ more $",
        "export PATH=$HOME/bin:$PATH",
        r"\mystery and $\mystery{x}$ and \(\mystery{y}\)",
        "$$ not closed",
    ],
)
def test_prices_and_unknown_things_stay_as_they_were_typed(text: str) -> None:
    assert " ".join(shown(text, 100).split()) == text


@pytest.mark.parametrize(
    "text", ["$" * 5000, "\\(" * 3000, "\\[\n" * 3000, "$$\n" * 1001, "$" + "{" * 900 + "}" * 900 + "$"]
)
def test_what_begins_many_formulas_and_ends_none_is_read_once(text: str) -> None:
    begun = time.process_time()
    shown(text)
    assert time.process_time() - begun < 20  # seconds; quadratic, it takes minutes


def test_code_is_never_touched_and_the_source_stays() -> None:
    source = "`$x^2$` is $x^2$\n\n```\n$x^2$ \\(a\\)\n```"
    assert "$x^2$ is x²" in shown(source) and "$x^2$ \\(a\\)" in shown(source)
    assert AnswerEntry(source).text == source
