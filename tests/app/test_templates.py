"""Chat templates as models bring them: each gets chats in the form that it wants."""

from __future__ import annotations

import json

import pytest

from specee.app.engine.chat_template import ChatTemplate
from specee.app.engine.model_template import choose_template
from specee.app.engine.protocol import Message
from specee.app.errors import USAGE, AppError
from specee.models.vocabulary import Vocabulary

ASK = (Message("user", "Hi"),)
NONE = Vocabulary(frozenset(), {})
CHATML = Vocabulary(frozenset(("<|im_start|>", "<|im_end|>")), {})


@pytest.mark.parametrize(
    "template",
    [
        "{# nothing #}",
        " \n",
        "{% if false %}a{% endif %}",
        "{{ '' }}",
        "{{ bos_token }}",
        "the same for all",
        "{% for %}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{{ messages[7].content.x + 1 }}",
        "{{ range(10**9) | list }}",
        "{{ {}['a'].b.c }}",
    ],
)
def test_an_unusable_template_is_replaced_and_said(template: str) -> None:
    found = choose_template({"": template}, CHATML)
    assert found.template(ASK) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert found.note is not None and "ChatML" in found.note and "\n" not in found.note
    if template.strip():
        assert found.broken and found.broken in found.note


def test_what_a_template_refuses_for_some_chats() -> None:
    for refusal in ("raise_exception('no')", "1 / 0", "messages[77].content.x", "range(10**9) | list", "{}['a'].b.c"):
        some = "{{ messages[0].content }}{% if messages[0].content == 'x' %}{{ " + refusal + " }}{% endif %}"
        with pytest.raises(AppError, match="refuses") as refused:
            ChatTemplate(some, {})((Message("user", "x"),))
        assert refused.value.exit_code == USAGE


TOOLS = (
    "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}"
    "{% for m in messages %}{{ m.role }}({{ m.name }},{{ m.tool_call_id }}):{{ m.content }}"
    "{% for call in m.tool_calls %}{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}|"
    "{% endfor %}"
)


def test_templates_get_tools_and_tool_calls() -> None:
    render = ChatTemplate(TOOLS, {})
    plain = choose_template({}, CHATML).template
    assert render.takes_tools and not plain.takes_tools
    assert not ChatTemplate("{{ messages[0].content }}{{ raise_exception('no') if tools }}", {}).takes_tools
    assert render.takes_calls and not plain.takes_calls
    for shown, instead in (
        ("call.function.name", "''"),
        ("call.function.arguments", "1"),
        ("m.content", "(m.content if m.role != 'tool')"),
        ("{{ m.role }}", "{{ raise_exception('no') if m.role == 'tool' }}"),
    ):
        template = TOOLS.replace(shown, instead).replace("m.name", "''")
        assert shown in TOOLS and not ChatTemplate(template, {}).takes_calls
    tools = json.dumps([{"type": "function", "function": {"name": "weather", "parameters": {}}}])

    def call(arguments: str) -> str:
        return json.dumps([{"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}])

    answer = Message("tool", "sunny", tool_call_id="1", name="weather")
    text = render((*ASK, Message("assistant", "", tool_calls=call('{"city": "Rome"}')), answer), tools)
    assert text == 'weather;user(,):Hi|assistant(,):weather {"city": "Rome"}|tool(weather,1):sunny|'
    assert 'weather "{city"' in render((Message("assistant", "", tool_calls=call("{city")),)), "as the model wrote it"
    with pytest.raises(AppError, match="refuses"):
        render((Message("assistant", "", tool_calls="5"),))
