"""One chat template as transformers renders it: what it may use, within our limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from specee.app.engine import template_limits


class JinjaTemplate:
    """Compiles the template, which is code of the model's file: it may raise anything, and so may `render`.

    `texts`: of special tokens, as `bos_token`, and whatever else is the same for each chat.
    """

    def __init__(self, source: str, texts: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        self._template = template_limits.bounded(environment, source)
        self._texts = dict(texts)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        now: datetime,
        tools: str | None = None,
        length: int = 0,
        **variables: Any,
    ) -> str:
        """`now`: what the template takes for today; `tools`: the JSON of a list; `length`: characters of the chat."""
        listed = None if tools is None else json.loads(tools)
        with template_limits.deadline(length):
            return str(
                self._template.render(
                    {
                        **self._texts,
                        "messages": messages,
                        "tools": listed,
                        "xml_tools": listed,  # SmolLM3's name for them
                        "functions": json.dumps(listed or [], indent=2, ensure_ascii=False),  # Firefunction's
                        "documents": None,
                        "add_generation_prompt": True,
                        "strftime_now": now.strftime,
                        # as llama.cpp gives them to templates that cannot ask for the time
                        "date_string": now.strftime("%d %b %Y"),
                        "datetime": now.strftime("%b %d %Y"),
                        **variables,
                    }
                )
            )


class _Generation(Extension):
    """`{% generation %}` marks answers, for training; its variables are its own, as in transformers."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """transformers' filter: not escaped for HTML, and in the order that was given."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
