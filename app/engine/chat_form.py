"""What a chat template wants of a chat that people and programs do not keep to, found out by trying.

Some have no place for a system message, or only for one at the beginning; some want user and assistant to take turns.
What they do not take as it is, they get in another form, so that nothing of what was written is lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from specee.app.engine.protocol import Message
from specee.app.engine.template_limits import TooMuchError

THOUGHT_NAMES = ("reasoning_content", "reasoning", "thinking")
"""Under which templates look for the thought of a message."""
BETWEEN = "\n\n"
"""Between messages that become one."""
ID_LENGTH = 9
"""Of the ids of calls, where a template is particular about them: Mistral's."""

Objects = list[dict[str, Any]]
"""Messages as templates expect them."""
Render = Callable[[Objects], str]


@dataclass(frozen=True)
class Form:
    """How chats are written for one template."""

    has_parts: bool = False
    """The content of a message is a list of parts."""
    folds_system: bool = False
    """It has no place for a system message: the text goes into the first question."""
    system_first: bool = False
    """It has none for system messages further down: they go into the question that follows."""
    asks: bool = False
    """It wants a question: a system message alone becomes one."""
    alternates: bool = False
    """User and assistant take turns: neighbours of one role become one message."""
    user_begins: bool = False
    """No answer comes before a question: an empty one stands before it."""
    drops_empty: bool = False
    """It refuses an answer without text: that is left out."""
    text_arguments: bool = False
    """The arguments of a call are a text, else an object."""
    no_content: bool = False
    """A message that has calls and no text has no content, else an empty one."""
    one_call: bool = False
    """A message has one call: others become messages of their own."""
    calls_apart: bool = False
    """A message has text or calls: the calls of one that has both become a message of their own."""
    short_ids: bool = False
    """The ids of calls have ID_LENGTH letters and digits."""

    def objects(self, messages: Sequence[Message]) -> Objects:
        """The chat for the template."""
        return [self._object(message) for message in self._shaped(messages)]

    def _shaped(self, messages: Sequence[Message]) -> Sequence[Message]:
        shaped = _placed(messages, self)
        if self.drops_empty:
            shaped = [m for m in shaped if m.role != "assistant" or m.content.strip() or m.tool_calls is not None]
        if self.calls_apart:
            shaped = [part for message in shaped for part in _text_and_calls(message)]
        if self.one_call:
            shaped = _one_call_each(shaped)
        if self.alternates:
            shaped = _alternating(shaped)
        return _asked_first(shaped) if self.user_begins else shaped

    def _object(self, message: Message) -> dict[str, Any]:
        content: Any = message.content
        if self.no_content and not content and message.tool_calls is not None:
            content = None
        elif self.has_parts:
            content = [{"type": "text", "text": content}]
        given: dict[str, Any] = {"role": message.role, "content": content}
        if message.tool_calls is not None:
            given["tool_calls"] = json.loads(message.tool_calls)
            for call in given["tool_calls"]:
                if self.short_ids:
                    call["id"] = _short(call["id"])
                if not self.text_arguments:
                    call["function"]["arguments"] = _arguments(call["function"]["arguments"])
        if message.tool_call_id is not None:
            given["tool_call_id"] = _short(message.tool_call_id) if self.short_ids else message.tool_call_id
        if message.name is not None:
            given["name"] = message.name
        if message.thought is not None:
            given |= dict.fromkeys(THOUGHT_NAMES, message.thought)
        return given


def _placed(messages: Sequence[Message], form: Form) -> list[Message]:
    """System messages where the template has a place for them, else in the question that follows."""
    folds = form.folds_system or (form.asks and not any(message.role == "user" for message in messages))
    placed: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system" and folds:
            waiting.append(message.content)
        elif message.role == "system" and form.system_first and placed:
            if placed[-1].role == "system":
                placed[-1] = _joined(placed[-1], message)
            else:
                waiting.append(message.content)
        elif message.role == "user" and waiting:
            placed.append(replace(message, content=_text((*waiting, message.content))))
            waiting = []
        else:
            placed.append(message)
    if waiting:
        placed.append(Message("user", _text(waiting)))
    return placed


def _alternating(messages: Sequence[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        before = joined[-1] if joined else None
        have_calls = message.tool_calls is not None or (before is not None and before.tool_calls is not None)
        if before is not None and before.role == message.role != "tool" and not have_calls:
            joined[-1] = _joined(before, message)
        else:
            joined.append(message)
    return joined


def _asked_first(messages: Sequence[Message]) -> Sequence[Message]:
    first = next((i for i, message in enumerate(messages) if message.role != "system"), None)
    if first is None or messages[first].role == "user":
        return messages
    return (*messages[:first], Message("user", ""), *messages[first:])


def _joined(before: Message, message: Message) -> Message:
    return replace(message, content=_text((before.content, message.content)))


def _text(texts: Sequence[str]) -> str:
    return BETWEEN.join(text for text in texts if text.strip()) or "".join(texts)


def _text_and_calls(message: Message) -> tuple[Message, ...]:
    if message.tool_calls is None or not message.content.strip():
        return (message,)
    return replace(message, tool_calls=None), replace(message, content="")


def _one_call_each(messages: Sequence[Message]) -> list[Message]:
    """Each call in a message of its own, with its result after it."""
    apart: list[Message] = []
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls = json.loads(message.tool_calls) if message.tool_calls is not None else []
        if len(calls) < 2:
            apart.append(message)
            continue
        results: list[Message] = []
        while rest and rest[0].role == "tool":
            results.append(rest.pop(0))
        for i, call in enumerate(calls):
            content = "" if i else message.content
            apart.append(replace(message, content=content, tool_calls=json.dumps([call])))
            apart += (result for result in results if result.tool_call_id == call["id"])
    return apart


def _arguments(text: str) -> Any:
    """The object that a text is, or the text: a model wrote it, and templates write a text as it is."""
    with suppress(ValueError, RecursionError):
        given = json.loads(text)
        if isinstance(given, dict):
            json.dumps(given, ensure_ascii=False, allow_nan=False).encode()  # a template can write it
            return given
    return text


def _short(call_id: str) -> str:
    if len(call_id) == ID_LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:ID_LENGTH]


# ---- finding it out ------------------------------------------------------------------------------------------------

ASKED, MORE, ANSWERED, TOLD, RULED = "probedquestion", "probedaddition", "probedanswer", "probedsystem", "probedrule"
PADDING = "probed padding, " * 4096
"""Of a text that is longer than any template has a reason to cut."""
SIGNS = "probed <b> & \"c\"\n  'd'"
"""Of what people paste: code, and text of web pages."""
TURNS = 40
CALLED, ARGUMENT, FOUND = "probedcall", "probedargument", "probedresult"
USER, AGAIN = Message("user", ASKED), Message("user", MORE)
ASSISTANT, SYSTEM = Message("assistant", ANSWERED), Message("system", TOLD)
MOST = {"folds_system": True, "asks": True, "alternates": True, "user_begins": True, "drops_empty": True}
"""For a chat that a template refuses in the form that was found."""


def find_form(render: Render) -> Form:
    """The form that a template wants. Raises what rendering a single question raises, and LookupError where that leaves
    the question out, or cuts what is long."""
    form = _find_form(render)
    require_all_of_long_chats(render, form)
    return form


def require_all_of_long_chats(render: Render, form: Form) -> None:
    """Raises LookupError where a template leaves out a part of long texts, some of many messages, or signs."""
    for role, text, what in (("user", ASKED, "what the user says"), ("system", TOLD, "the system message")):
        long = Message(role, f"{text} {PADDING}{text}end")
        before, after = ((), (USER,)) if role == "system" else ((USER, ASSISTANT), ())
        if _cuts(render, form, (*before, replace(long, content=text), *after), (*before, long, *after)):
            raise LookupError(f"it cuts {what} where that is long")
    signs = Message("user", SIGNS)
    if _cuts(render, form, (USER,), (signs,)) and not _as_json(render, form, signs):
        raise LookupError("it changes characters in what the user says")
    many = [Message("user" if i % 2 == 0 else "assistant", f"probed{i}turn") for i in range(2 * TURNS + 1)]
    if _cuts(render, form, many[-3:], many):
        raise LookupError("it leaves out what was said earlier in long chats")


def _cuts(render: Render, form: Form, short: Sequence[Message], long: Sequence[Message]) -> bool:
    """Whether it writes all of a short chat, and not of a long one, which it does not refuse either."""
    with suppress(Exception):
        return _shows(render, form, short) and not _has_all(render(form.objects(long)), long)
    return False


def _as_json(render: Render, form: Form, message: Message) -> bool:
    """Whether a text stands there as JSON, which has all of it."""
    with suppress(Exception):
        return json.dumps(message.content, ensure_ascii=False) in render(form.objects((message,)))
    return False


def _find_form(render: Render) -> Form:
    form = Form(has_parts=_has_parts(render))

    def shows(form: Form, *messages: Message) -> bool:
        return _shows(render, form, messages)

    form = replace(form, folds_system=not shows(form, SYSTEM, USER))
    form = replace(form, asks=not shows(form, SYSTEM))
    form = replace(form, alternates=not (shows(form, USER, AGAIN) and shows(form, USER, ASSISTANT, ASSISTANT, AGAIN)))
    form = replace(form, user_begins=not shows(form, ASSISTANT, AGAIN))
    form = replace(form, drops_empty=not shows(form, USER, Message("assistant", ""), AGAIN))
    rule = Message("system", RULED)
    places = ((USER, ASSISTANT, SYSTEM, AGAIN), (USER, ASSISTANT, SYSTEM), (SYSTEM, rule, USER))
    anywhere = all(shows(form, *chat) for chat in places)
    return replace(form, system_first=not (form.folds_system or anywhere))


def find_form_of_calls(render: Render, form: Form) -> Form | None:
    """The form with what calls of tools and their results want; None where the template leaves them out."""
    for text_arguments, no_content, short_ids in product((False, True), repeat=3):
        tried = replace(form, text_arguments=text_arguments, no_content=no_content, short_ids=short_ids)
        if _shows_calls(render, tried, 1):
            tried = replace(tried, one_call=not _shows_calls(render, tried, 2))
            apart = replace(tried, calls_apart=True)
            takes_both = _shows_calls(render, tried, 1, TOLD)
            return tried if takes_both or not _shows_calls(render, apart, 1, TOLD, (ASSISTANT, AGAIN)) else apart
    return None


def _has_parts(render: Render) -> bool:
    """Whether messages are lists of parts: where texts do not do, for the question or the system message."""
    texts, parts = Form(), Form(has_parts=True)
    if _shows(render, texts, (SYSTEM, USER)):
        return False
    if _shows(render, parts, (SYSTEM, USER)):
        return True
    if _shows(render, texts, (USER,)):
        return False
    if _shows(render, parts, (USER,)):
        return True
    render(texts.objects((USER,)))  # raises, if that is why
    raise LookupError("it leaves out what the user says")


def _shows(render: Render, form: Form, messages: Sequence[Message]) -> bool:
    """Whether all that is said is in what the template makes."""
    try:
        text = render(form.objects(messages))
    except TooMuchError:
        raise
    except Exception:  # the template is code of the model's file
        return False
    return _has_all(text, messages)


def _has_all(text: str, messages: Sequence[Message]) -> bool:
    text = text.lower()
    return all(text.count(message.content) >= messages.count(message) for message in messages)


def _shows_calls(render: Render, form: Form, n: int, said: str = "", then: Sequence[Message] = ()) -> bool:
    try:
        text = render(form.objects((*calling(n, said), *then)))
    except TooMuchError:
        raise
    except Exception:
        return False
    wanted = [CALLED, ARGUMENT, said, *(f"{FOUND}{i}" for i in range(n))]
    as_python = f"{{'{ARGUMENT}'" in text  # what is printed of an object is no JSON
    return all(each in text for each in wanted) and text.count(CALLED) >= n and not as_python


def calling(n: int, said: str = "") -> Iterator[Message]:
    """A question, so many calls of a tool beside what is `said`, and their results."""
    ids = [f"call_{i:032}" for i in range(n)]  # as long as those that we give
    function = {"name": CALLED, "arguments": json.dumps({ARGUMENT: 1})}
    calls = [{"id": each, "type": "function", "function": function} for each in ids]
    yield USER
    yield Message("assistant", said, tool_calls=json.dumps(calls))
    for i, each in enumerate(ids):
        yield Message("tool", f"{FOUND}{i}", tool_call_id=each, name=CALLED)
