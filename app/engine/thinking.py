"""Whether a model thinks before it answers, how it marks that, and how its chat template is told: found by rendering
the template in several ways, and by the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from specee.app.engine.chat_template import ChatTemplate
from specee.app.engine.protocol import Message
from specee.app.engine.thought_splitter import ThoughtForm
from specee.app.errors import AppError
from specee.app.settings import Think

Kind = Literal["never", "always", "on", "off"]
Variables = Mapping[str, Any]

HARMONY = ThoughtForm(
    "<|channel|>analysis<|message|>",
    "<|end|>",
    heads=(("<|channel|>final<|message|>", "<|end|>"), ("<|channel|>commentary<|message|>", "<|end|>")),
    skipped=("<|start|>assistant",),
    closing="<|end|><|start|>assistant<|channel|>final<|message|>",
    plain_opening="<|channel|>final<|message|>",
)
SOLAR = ThoughtForm(
    "<|think|>",
    "<|end|>",
    heads=(("<|content|>", "<|end|>"),),
    skipped=("<|begin|>assistant",),
    closing="<|end|><|begin|>assistant<|content|>",
    plain_opening="<|content|>",
)
TO_SELF = ThoughtForm(
    "to=self<|message|>",
    "<|eom|>",
    opening=" to=self<|message|>",
    heads=(("to=user<|message|>", "<|eom|>"),),
    skipped=("<|start|>assistant",),
    closing="<|eom|><|start|>assistant to=user<|message|>",
    plain_opening=" to=user<|message|>",
)
KIMI_K3 = ThoughtForm(
    "think<|sep|>",
    "<|close|>think<|sep|>",
    heads=(("<|open|>response<|sep|>", "<|close|>response<|sep|>"), ("response<|sep|>", "<|close|>response<|sep|>")),
    skipped=("<|open|>",),
    closing="<|close|>think<|sep|><|open|>response<|sep|>",
)
COHERE = ThoughtForm(
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    heads=(("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<|START_TEXT|>", "<|END_TEXT|>")),
)
APRIEL = ThoughtForm(
    "Here are my reasoning steps:",
    "[BEGIN FINAL RESPONSE]",
    opening="Here are my reasoning steps:\n",
    closing="\n[BEGIN FINAL RESPONSE]\n",
    tail="[END FINAL RESPONSE]",
)
GRANITE = ThoughtForm(
    "Here is my thought process:",
    "Here is my response:",
    opening="Here is my thought process:\n",
    closing="\n\nHere is my response:\n",
)
KNOWN = (
    *(HARMONY, SOLAR, TO_SELF, KIMI_K3, COHERE, APRIEL, GRANITE),
    ThoughtForm("<|channel>thought", "<channel|>", opening="<|channel>thought\n", closing="\n<channel|>"),
    ThoughtForm("<unused94>thought", "<unused95>", opening="<unused94>thought\n", closing="<unused95>"),
    ThoughtForm("[THINK]", "[/THINK]"),
    ThoughtForm("<|inner_prefix|>", "<|inner_suffix|>"),
    ThoughtForm("◁think▷", "◁/think▷"),
    *(
        ThoughtForm(f"<{name}>", f"</{name}>", f"<{name}>\n", f"\n</{name}>\n\n")
        for name in ("think", "seed:think", "mm:think", "thought", "thinking", "reasoning")
    ),
)
"""Forms, of which one belongs to a model if there is a sign of it."""
ANSWER_TAGS = ("response", "answer")
"""Between which some models write what they say."""
_OPENING_TAG = re.compile(r"(<[^<>\s/][^<>\s]*>|\[[A-Z][A-Z_ ]*\])$")
_ENDING_TAG = re.compile(r"^(</?[^<>\s]+>|\[/?[A-Z][A-Z_ ]*\])")

SWITCHES: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("enable_thinking", True, (False,)),
    ("thinking", True, (False,)),
    ("thinking_mode", "enabled", ("disabled",)),
    ("reasoning", True, (False,)),
    ("reasoning_effort", "high", ("none", "no_think", "minimal", "low")),
    ("thinking_budget", None, (0,)),
)
"""Variables of templates, each with its values for thinking and not thinking; None: left undefined."""
WORDS = ("enable_thinking", "thinking")
"""Of them those that say nothing else, so that any difference that they make is about thinking."""
LEVEL = "reasoning_effort"
LEVELS: tuple[Think, ...] = ("low", "medium", "high")
QUESTION, THOUGHT, ANSWER = "specee_question", "specee_thought", "specee_answer"
ASKED = (Message("user", QUESTION),)


MARKS = "".join(map(chr, range(0xFDD0, 0xFDF0)))
"""No characters, so that no text has them: they stand for control tokens while an answer is taken apart."""


@dataclass(frozen=True)
class Thinking:
    """How a model thinks. `form` None: no thought of it can be told from its answer.

    `kind`: never, as far as its template shows; always, since the template has no switch; "on" and "off" are what its
    template does by itself. `variables`: what the template is given for a choice of the user.
    """

    form: ThoughtForm | None = None
    kind: Kind = "never"
    variables: Mapping[Think, Variables] = field(default_factory=dict)
    opened: frozenset[Think] = frozenset()
    """With these choices a prompt ends within a thought."""
    marks: Mapping[int, str] = field(default_factory=dict)
    """What stands for the control tokens of its markers, by token."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The same by their names."""

    @property
    def marked(self) -> ThoughtForm | None:
        """The form with these."""
        return self.form.with_names_as(self.names) if self.form is not None else None

    def with_tokens(self, control: Mapping[str, int]) -> Thinking:
        """The same for a vocabulary, of which `control` are the tokens that are no text, by their names."""
        if self.form is None:
            return self
        found = [name for name in control if any(name in marker for marker in self.form.markers)]
        names = dict(zip(found, MARKS, strict=False))
        return replace(self, marks={control[name]: mark for name, mark in names.items()}, names=names)

    def given(self, think: Think) -> Variables:
        return self.variables.get(think, {})

    def prepared(self, messages: Sequence[Message]) -> list[Message]:
        """Without the thoughts of earlier answers, but those between calls of tools: they belong to one answer."""
        last = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
        found = []
        for i, message in enumerate(messages):
            if message.role == "assistant":
                thought, content = (message.thought, message.content)
                if thought is None:
                    thought, content = self.split(message.content)
                kept = thought if i > last and message.tool_calls is not None else None
                message = replace(message, content=content, thought=kept or None)
            found.append(message)
        return found

    def opens(self, prompt: str, think: Think, last: str) -> bool:
        """Whether a prompt, which ends behind the message `last`, has begun a thought."""
        if self.form is None or not prompt.rstrip().endswith(self.form.begin):
            return False
        return think in self.opened or not last.rstrip().endswith(self.form.begin)

    def may_think(self, think: Think) -> bool:
        """Whether an answer is likely to begin with a thought."""
        if self.form is None or self.kind == "never":
            return False
        return self.kind == "always" or think not in ("off", *(("auto",) if self.kind == "off" else ()))

    def split(self, content: str) -> tuple[str | None, str]:
        """Thought and answer of an earlier message, where a program has sent them as one text."""
        if self.form is None:
            return None, content
        begin, end = self.form.begin, self.form.end
        text = content.lstrip()
        if not text.startswith(begin) or end not in text:
            return None, content
        thought, _, rest = text.removeprefix(begin).partition(end)
        return thought.strip(), rest.lstrip()


def find(template: ChatTemplate, is_token: Callable[[str], bool]) -> Thinking:
    """`is_token`: whether a text is one token of the vocabulary."""
    auto = _prompt(template, {})
    if auto is None:
        return Thinking()
    switch = _switch(template, auto)
    on, off = ({}, None) if switch is None else switch
    prompts = [text for text in (auto, _prompt(template, on), None if off is None else _prompt(template, off)) if text]
    form, is_shown = _form(template, is_token, prompts, on)
    if off is None:
        kind: Kind = "always" if is_shown else "never"
    else:
        kind = "off" if auto == _prompt(template, off) else "on"
    variables: dict[Think, Variables] = {"auto": {}, "on": on, "off": on if off is None else off}
    variables |= _levels(template, on)
    if off is None and LEVEL in variables["low"]:
        variables["off"] = variables["low"]  # the least that it can
    opened = [
        think
        for think, given in variables.items()
        if form is not None and (_prompt(template, given) or "").rstrip().endswith(form.begin)
    ]
    return Thinking(form, kind, variables, frozenset(opened))


def _prompt(template: ChatTemplate, variables: Variables) -> str | None:
    with suppress(AppError):
        return template(ASKED, None, variables)
    return None


def _tail(prompt: str) -> str:
    """What stands behind the question."""
    return prompt.rpartition(QUESTION)[2]


def _switch(template: ChatTemplate, auto: str) -> tuple[Variables, Variables] | None:
    """The variables for thinking and not thinking, where a template has some that change what it writes."""
    for name, for_on, for_off in SWITCHES:
        if re.search(rf"\b{name}\b", template.source) is None:
            continue
        on: Variables = {} if for_on is None else {name: for_on}
        with_on = _prompt(template, on)
        for value in for_off:
            with_off = _prompt(template, {name: value})
            if with_on is None or with_off is None or with_on == with_off:
                continue
            if name in WORDS or _tail(with_on) != _tail(with_off):
                return on, {name: value}
    return None


def _levels(template: ChatTemplate, on: Variables) -> dict[Think, Variables]:
    """How much is to be thought, where the template knows that: otherwise each level means that it shall think."""
    given: dict[Think, Variables] = {level: {**on, LEVEL: level} for level in LEVELS}
    if LEVEL in template.source:
        texts = [_prompt(template, given[level]) for level in LEVELS]
        if texts[0] != texts[-1] and texts[-1] is not None:
            known = {level: given[level] for level, text in zip(LEVELS, texts, strict=True) if text is not None}
            return {level: known.get(level, given["high"]) for level in LEVELS}
    return dict.fromkeys(LEVELS, on)


def _form(
    template: ChatTemplate, is_token: Callable[[str], bool], prompts: Sequence[str], on: Variables
) -> tuple[ThoughtForm | None, bool]:
    """How it writes thoughts, and whether its template shows that it does."""
    source = template.source
    before, between = _around_thought(template, on)
    tails = [_tail(prompt).rstrip() for prompt in prompts]
    for form in KNOWN:
        if before.rstrip().endswith(form.begin) and form.end in between:
            return _as_written(form, source, before, between), True
    for form in KNOWN:
        if any(tail.endswith(form.begin) or (tail.endswith(form.end) and form.begin in tail) for tail in tails):
            return _as_written(form, source), True
    begin, end = _OPENING_TAG.search(before.rstrip()), _ENDING_TAG.match(between.lstrip())
    if begin is not None and end is not None:
        return _as_written(ThoughtForm(begin[0], end[0]), source, before, between), True
    for tail in tails:
        begin = _OPENING_TAG.search(tail)
        if begin is not None and (end_tag := _closing_tag(begin[0])) in source and len(set(tails)) > 1:
            return _as_written(ThoughtForm(begin[0], end_tag), source), True
    for form in KNOWN:
        if form.end in source and (form.begin in source or is_token(form.begin)):
            return _as_written(form, source), True
    for form in KNOWN:
        if is_token(form.begin) and is_token(form.end):
            return _as_written(form, source), False
    return None, False


def _is_of_answers(tag: str, source: str) -> bool:
    """Whether it tells a model to write such tags, or takes them away again."""
    return f"<{tag}></{tag}>" in source or re.search(rf"split\(\s*['\"]<{tag}>", source) is not None


def _closing_tag(opening: str) -> str:
    return f"{opening[0]}/{opening[1:]}"


def _around_thought(template: ChatTemplate, on: Variables) -> tuple[str, str]:
    """What the template writes before the thought of an answer, and between that and what is said."""
    with suppress(AppError):
        text = template((*ASKED, Message("assistant", ANSWER, thought=THOUGHT)), None, on)
        before, found, rest = text.partition(THOUGHT)
        between, said, _ = rest.partition(ANSWER)
        if found and said:
            return before, between
    return "", ""


def _as_written(form: ThoughtForm, source: str, before: str = "", between: str = "") -> ThoughtForm:
    """With the spaces that the template writes, and the tags of answers that it names."""
    opening = form.opening or form.begin
    if before:
        opening = form.begin + before[len(before.rstrip()) :]
    heads = form.heads or tuple((f"<{tag}>", f"</{tag}>") for tag in ANSWER_TAGS if _is_of_answers(tag, source))
    return replace(form, opening=opening, closing=between or form.closing or form.end, heads=heads)
