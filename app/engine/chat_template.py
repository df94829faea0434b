"""A chat as the prompt that the model was trained on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from jinja2 import UndefinedError

from specee.app.engine import chat_form
from specee.app.engine.chat_clock import ChatClock
from specee.app.engine.chat_form import Form
from specee.app.engine.jinja_template import JinjaTemplate
from specee.app.engine.prompt_ending import PromptEnding, find_ending
from specee.app.engine.protocol import Message
from specee.app.engine.template_limits import TooMuchError
from specee.app.errors import MODEL_MISSING, USAGE, AppError
from specee.app.formatting import visible

PROBE = "specee_probe"
MAX_REASON = 300  # characters
PARAMETERS = {"type": "object", "properties": {"probed": {"type": "string", "description": ""}}, "required": []}
TOOLS = json.dumps([{"type": "function", "function": {"name": PROBE, "description": "", "parameters": PARAMETERS}}])

MAX_TRIED_SECONDS = 20.0  # of all renderings that find out what a template can do; most take some milliseconds each


class ChatTemplate:
    """Writes chats in the form that a template wants: see `Form`.

    `for_tools`: another template for chats with tools, as some models have. Raises whatever a template may raise.
    """

    def __init__(
        self,
        source: str,
        special: Mapping[str, str],
        *,
        for_tools: str | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self._ending = PromptEnding()
        self._clock = ChatClock(now)
        self._plain = JinjaTemplate(source, special)
        self._no_tools: str | None = None
        self._tried_seconds = 0.0
        try:
            form = chat_form.find_form(self._probe(self._plain, None))
        except (TypeError, UndefinedError):  # it goes through the tools without asking whether there are any
            self._no_tools = "[]"
            form = chat_form.find_form(self._probe(self._plain, None))
        self.form = self._form_with_tools = form
        self._with_tools = self._plain
        if for_tools is not None:
            with suppress(Exception):  # it is code of the model's file; without it there are no tools
                with_tools = JinjaTemplate(for_tools, special)
                self._form_with_tools = chat_form.find_form(self._probe(with_tools, TOOLS))
                self._with_tools = with_tools
        of_calls = chat_form.find_form_of_calls(
            self._probe(self._with_tools, None), self._form_with_tools
        ) or chat_form.find_form_of_calls(self._probe(self._with_tools, TOOLS), self._form_with_tools)
        self.takes_calls = of_calls is not None
        """Whether the template has a place for calls of tools, and for their results."""
        self._form_with_tools = of_calls or self._form_with_tools
        self.takes_tools = self._takes_tools()
        """Whether it has one for tools."""
        self._ending = self._find_ending(special)

    def _probe(self, template: JinjaTemplate, tools: str | None) -> chat_form.Render:
        def render(objects: chat_form.Objects) -> str:
            if self._tried_seconds > MAX_TRIED_SECONDS:
                raise TooMuchError(f"it computes for more than {MAX_TRIED_SECONDS:g} seconds while it is tried")
            began = time.monotonic()
            try:
                return template.render(objects, now=self._clock.now(), tools=tools or self._no_tools)
            finally:
                self._tried_seconds += time.monotonic() - began

        return render

    def __call__(
        self, messages: Sequence[Message], tools: str | None = None, variables: Mapping[str, Any] | None = None, /
    ) -> str:
        """The text of a chat; `tools`: the JSON of a list; `variables`: what else the template is given, by name.

        Raises AppError when the template refuses the chat.
        """
        now = self._clock.time_of(messages)
        has_calls = any(message.tool_calls is not None or message.role == "tool" for message in messages)
        with_tools = has_calls or tools is not None
        template, form = (self._with_tools, self._form_with_tools) if with_tools else (self._plain, self.form)
        none = self._no_tools if template is self._plain else "[]"
        length = len(tools or "") + sum(
            len(m.content) + len(m.tool_calls or "") + len(m.thought or "") for m in messages
        )

        def rendered(form: Form, tools: str | None) -> str:
            given = {"now": now, "tools": tools or none, "length": length, **(variables or {})}
            return self._ending(template.render(form.objects(messages), **given))

        try:
            return rendered(form, tools)
        except Exception as error:  # the template is code of the model's file, and may fail in any way
            refusal = error
        try:
            if isinstance(refusal, TooMuchError):
                raise refusal
            return rendered(replace(form, **chat_form.MOST), tools and _completed(tools))
        except Exception:
            why = f"the model's template refuses this chat: {as_line(refusal)}"
            raise AppError("chat template", why, USAGE) from refusal

    def tried(self, objects: chat_form.Objects, **variables: Any) -> str:
        """The text of messages as they are; "" when the template refuses them."""
        try:
            return self._plain.render(objects, now=self._clock.now(), tools=self._no_tools, **variables)
        except Exception:  # it is code of the model's file
            return ""

    def _find_ending(self, special: Mapping[str, str]) -> PromptEnding:
        def render(has_answer: bool, opens: bool) -> str:
            chat = (chat_form.USER, chat_form.ASSISTANT) if has_answer else (chat_form.USER,)
            return self.tried(self.form.objects(chat), add_generation_prompt=opens)

        return find_ending(render, chat_form.ASKED, chat_form.ANSWERED, special.get("eos_token", ""))

    def _takes_tools(self) -> bool:
        try:
            return PROBE in self((Message("user", "?"),), TOOLS)
        except AppError:
            return False


def _completed(tools: str) -> str:
    """The tools, with all that templates look for without asking whether it is there."""
    listed = json.loads(tools)
    for tool in listed:
        function = tool["function"]
        function.setdefault("description", "")
        parameters = function["parameters"] = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
        parameters.setdefault("required", [])
        for value in parameters["properties"].values():
            if isinstance(value, dict):
                value.setdefault("type", "string")
                value.setdefault("description", "")
    return json.dumps(listed, ensure_ascii=False)


def as_line(error: BaseException) -> str:
    """What a template's author has to say, in one line."""
    return visible(" ".join(str(error).split()))[:MAX_REASON] or type(error).__name__


def no_text() -> AppError:
    """A template that leaves out all that was said."""
    return AppError(
        "bad chat template", "it gives no text; take another model, or another file of this one", MODEL_MISSING
    )
