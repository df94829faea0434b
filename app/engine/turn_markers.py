"""Which tokens a chat template writes around what is said: what ends an answer, and what nobody else may write.

Files mark most of them as control tokens, and the last one of an answer as its end; not all files do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from specee.app.engine.chat_form import AGAIN, ANSWERED, ASSISTANT, MORE, SYSTEM, USER, calling
from specee.app.engine.chat_template import TOOLS, ChatTemplate
from specee.app.engine.model_template import ModelTemplate
from specee.app.engine.protocol import Message
from specee.app.errors import AppError

_LOOKS_SO = re.compile(r"<\|[^<>|\s]+\|>|<\|?[a-z_]*turn\|?>")
_THOUGHTS = re.compile("think|thought|reason", re.IGNORECASE)
"""Markers of thoughts, which templates look for in answers."""
THOUGHT = "probedthought"
THOUGHT_NAMES = ("reasoning_content", "reasoning", "thinking")
"""Under which templates look for it."""


def learn_markers(model: Any, opened: ModelTemplate) -> tuple[str, ...]:
    """Tells a native model what ends an answer, and what does not; returns the names of all tokens beside the control
    tokens that only the template may write."""
    template = opened.template
    for name in not_the_end(template, model.stop_names, opened.as_text):
        model.read_as_text(name)
    end = end_of_answer(template, (*model.control_tokens, *model.user_defined_tokens), model.stop_names)
    if end is not None:
        model.stop_at(end)
    return written_markers(template, model.user_defined_tokens)


def written_markers(template: ChatTemplate, user_defined: Sequence[str]) -> tuple[str, ...]:
    """Those of the tokens that separate what is said, though the file does not call them control tokens."""
    chats: tuple[tuple[tuple[Message, ...], str | None], ...] = (
        ((SYSTEM, USER, ASSISTANT, AGAIN), None),
        ((SYSTEM, USER, ASSISTANT, AGAIN), TOOLS if template.takes_tools else None),
        ((*calling(1), ASSISTANT, AGAIN), TOOLS if template.takes_tools else None),
    )
    written = "".join(_rendered(template, *chat) for chat in chats)
    return tuple(
        name
        for name in user_defined
        if not _THOUGHTS.search(name) and (_LOOKS_SO.fullmatch(name) or (_is_tag(name) and name in written))
    )


def end_of_answer(template: ChatTemplate, names: Collection[str], stops: Collection[str]) -> str | None:
    """The marker that the template writes behind an answer, where none of the known `stops` stands there.

    `names`: of all tokens that may be it.
    """
    between = _between(_rendered(template, (USER, ASSISTANT, AGAIN)), ANSWERED, MORE)
    if any(stop and stop in between for stop in stops):
        return None
    behind = between.lstrip()
    found = max((name for name in names if name and behind.startswith(name)), key=len, default=None)
    if found is None:
        return None
    return None if found in _between(_with_thought(template), THOUGHT, ANSWERED) else found


def not_the_end(template: ChatTemplate, stops: Collection[str], as_text: Collection[str]) -> tuple[str, ...]:
    """Those of the `stops` that are text: tags of HTML, which llama.cpp takes for what they are in other vocabularies.

    `as_text`: the tags that the file has as text.
    """
    written = _rendered(template, (USER, ASSISTANT, AGAIN))
    return tuple(name for name in stops if name in as_text and name not in written)


def _with_thought(template: ChatTemplate) -> str:
    """Some models end a thought as others end an answer, and then go on."""
    question, answer = template.form.objects((USER, ASSISTANT))
    return template.tried([question, answer | dict.fromkeys(THOUGHT_NAMES, THOUGHT)], add_generation_prompt=False)


def _between(text: str, begin: str, end: str) -> str:
    _, _, rest = text.partition(begin)
    return rest.partition(end)[0]


def _is_tag(name: str) -> bool:
    return len(name) > 2 and (name[0], name[-1]) in (("<", ">"), ("[", "]"))


def _rendered(template: ChatTemplate, messages: Sequence[Message], tools: str | None = None) -> str:
    try:
        return template(messages, tools)
    except AppError:
        return ""
