"""What is found out about a model's thoughts, by its template and its vocabulary."""

from __future__ import annotations

from typing import Any

import pytest

from specee.app.engine import thinking
from specee.app.engine.chat_template import ChatTemplate
from specee.app.engine.thinking import Thinking

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
ASSISTANT = "{% if add_generation_prompt %}<|assistant|>BEGUN{% endif %}"
NOT = "enable_thinking is defined and not enable_thinking"
REASONS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content %}BEGIN{{ m.reasoning_content }}END{% endif %}"
    "{{ m.content }}{% endfor %}"
)


def find(template: str, *tokens: str) -> Thinking:
    return thinking.find(ChatTemplate(template, {}), lambda text: text in tokens)


def generation(text: str) -> str:
    return TURNS + ASSISTANT.replace("BEGUN", text)


@pytest.mark.parametrize(
    ("template", "kind", "begin", "opened"),
    [
        (generation(""), "never", None, False),
        (generation("<think>\n"), "always", "<think>", True),  # as of deepseek-r1
        (generation("{% if " + NOT + " %}<think>\n\n</think>\n\n{% endif %}"), "on", "<think>", False),  # qwen3
        (generation("{% if " + NOT + " %}<think></think>{% else %}<think>{% endif %}"), "on", "<think>", True),
        (
            generation("{% if not thinking | default(false) %}</think>{% else %}<think>{% endif %}"),
            "off",
            "<think>",
            False,
        ),
        (generation("<think>{% if not thinking %}</think>{% endif %}"), "off", "<think>", False),  # deepseek-v3
        (
            "{% if thinking %}Write your thoughts between <think></think> and your response between "
            "<response></response>{% endif %}" + generation(""),
            "off",
            "<think>",
            False,
        ),  # granite 3.3
        (
            "{% if thinking %}Begin with 'Here is my thought process:', then 'Here is my response:'{% endif %}"
            + generation(""),
            "off",
            "Here is my thought process:",
            False,
        ),  # granite 3.2
        (
            "Think first: [THINK]inner monologue[/THINK] answer" + generation(""),
            "always",
            "[THINK]",
            False,
        ),  # magistral
        (
            generation("{% if thinking_budget == 0 %}<seed:think></seed:think>{% endif %}"),
            "on",
            "<seed:think>",
            False,
        ),
        (
            generation("{% if not enable_thinking | default(false) %}<|channel>thought\n<channel|>{% endif %}"),
            "off",
            "<|channel>thought",
            False,
        ),  # gemma4
        (generation("<thought>\n"), "always", "<thought>", True),  # exaone-deep
        (generation("{% if " + NOT + " %}<my:mind></my:mind>{% else %}<my:mind>{% endif %}"), "on", "<my:mind>", True),
        (REASONS.replace("BEGIN", "<ponder>\n").replace("END", "\n</ponder>\n"), "always", "<ponder>", False),
        (REASONS.replace("BEGIN", "<|in|>").replace("END", "<|out|>"), "always", "<|in|>", False),
        (generation("") + "{# strips </think> #}", "never", None, False),
    ],
)
def test_by_the_template(template: str, kind: str, begin: str | None, opened: bool) -> None:
    found = find(template)
    assert (found.kind, found.form and found.form.begin) == (kind, begin)
    assert ("auto" in found.opened) is opened
    if kind in ("on", "off"):
        assert found.given("on") != found.given("off") and found.given("auto") == {}
        assert found.may_think("on") and not found.may_think("off")


def test_by_the_vocabulary() -> None:
    """A model of a family that thinks, whose own template shows nothing of it: its thoughts would be told apart."""
    found = find(generation(""), "<think>", "</think>")
    assert found.kind == "never" and found.form is not None and found.form.end == "</think>"
    assert not found.may_think("auto")


def test_how_much_it_shall_think() -> None:
    harmony = (
        "Reasoning: {{ reasoning_effort | default('medium') }}{% for m in messages %}{{ m.content }}"
        "{% if m.thinking %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}{% endfor %}"
        "<|start|>assistant"
    )
    found = find(harmony)
    assert found.form is not None and found.form.begin == thinking.HARMONY.begin and found.kind == "always"
    assert found.given("high") == {"reasoning_effort": "high"} and found.given("off") == {"reasoning_effort": "low"}
    without = find(generation("<think>\n"))
    assert without.given("high") == without.given("on") == {}


@pytest.mark.parametrize(
    ("written", "opening", "closing"),
    [("<think>\nX\n</think>\n\n", "<think>\n", "\n</think>\n\n"), ("<think>X</think>", "<think>", "</think>")],
)
def test_spaces_are_the_templates(written: str, opening: str, closing: str) -> None:
    begin, _, end = written.partition("X")
    form = find(REASONS.replace("BEGIN", begin).replace("END", end)).form
    assert form is not None and (form.opening, form.closing) == (opening, closing)


def test_tags_of_answers_only_where_a_template_tells_of_them() -> None:
    assert find("Write <response></response>" + generation("<think>")).form.heads == (("<response>", "</response>"),)  # type: ignore[union-attr]
    assert find("results are in <response>{{ x }}</response>" + generation("<think>")).form.heads == ()  # type: ignore[union-attr]


def test_what_a_prompt_ends_with_is_not_the_users() -> None:
    found = find("{% for m in messages %}{{ m.content }}{% endfor %}" + "{# <think></think> #}")
    assert found.form is not None
    assert not found.opens("What is <think>", "auto", "What is <think>")
    opened = find(generation("<think>\n"))
    assert opened.opens("?<|end|><|assistant|><think>\n", "auto", "What is <think>")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("<think>\nOne\n</think>\n\nTwo", ("One", "Two")),
        ("Two </think> three", (None, "Two </think> three")),
        ("<think> never closed", (None, "<think> never closed")),
        ("Say <think>x</think>", (None, "Say <think>x</think>")),
    ],
)
def test_an_earlier_message_with_its_thought(content: str, parts: Any) -> None:
    assert find(generation("<think>\n")).split(content) == parts


def test_a_template_that_fails_where_it_is_told() -> None:
    template = generation("{% if enable_thinking is defined %}{{ raise_exception('no') }}{% endif %}")
    assert find(template).kind == "never"
