"""Chat templates as models bring them: each gets chats in the form that it wants."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_chat
from model_templates import FOLDS_SYSTEM, TAKES_CALLS, TEMPLATES

from specee.app.engine.chat_template import TOOLS, ChatTemplate
from specee.app.engine.model_template import choose_template, open_model_template
from specee.app.engine.protocol import Message
from specee.app.engine.template_guess import GUESSES
from specee.app.errors import USAGE, AppError
from specee.models import gguf_header
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


WITH_TOOLS = (
    "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}"
    "{% for m in messages %}{{ m.role }}({{ m.name }},{{ m.tool_call_id }}):{{ m.content }}"
    "{% for call in m.tool_calls %}{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}|"
    "{% endfor %}"
)


def test_templates_get_tools_and_tool_calls() -> None:
    render = ChatTemplate(WITH_TOOLS, {})
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
        template = WITH_TOOLS.replace(shown, instead).replace("m.name", "''")
        assert shown in WITH_TOOLS and not ChatTemplate(template, {}).takes_calls
    tools = json.dumps([{"type": "function", "function": {"name": "weather", "parameters": {}}}])

    def call(arguments: str) -> str:
        return json.dumps([{"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}])

    answer = Message("tool", "sunny", tool_call_id="1", name="weather")
    text = render((*ASK, Message("assistant", "", tool_calls=call('{"city": "Rome"}')), answer), tools)
    assert text == 'weather;user(,):Hi|assistant(,):weather {"city": "Rome"}|tool(weather,1):sunny|assistant(,):'
    assert 'weather "{city"' in render((Message("assistant", "", tool_calls=call("{city")),)), "as the model wrote it"
    with pytest.raises(AppError, match="refuses"):
        render((Message("assistant", "", tool_calls="5"),))


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
SYSTEM, RULE = Message("system", "Answer in one word."), Message("system", "No swearing.")
USER, AGAIN = Message("user", "Wie heißt du?"), Message("user", "Und wie alt bist du?")
ANSWER, MORE = Message("assistant", "Specee."), Message("assistant", "Nicht alt.")
CHATS = {
    "one question": (USER,),
    "system message": (SYSTEM, USER),
    "several turns": (SYSTEM, USER, ANSWER, AGAIN, MORE, USER),
    "ends with an answer": (USER, ANSWER),
    "two questions": (USER, AGAIN),
    "two questions later": (SYSTEM, USER, ANSWER, AGAIN, USER),
    "an empty answer": (USER, Message("assistant", ""), AGAIN),
    "two answers": (USER, ANSWER, MORE, AGAIN),
    "system message later": (USER, ANSWER, SYSTEM, AGAIN),
    "system message at the end": (USER, ANSWER, SYSTEM),
    "two system messages": (SYSTEM, RULE, USER),
    "system messages here and there": (SYSTEM, USER, RULE, ANSWER, SYSTEM, AGAIN),
    "an empty system message": (Message("system", ""), USER),
    "a blank system message": (Message("system", " \n"), USER),
    "only a system message": (SYSTEM,),
    "an answer first": (ANSWER, USER),
    "an answer after the system message": (SYSTEM, ANSWER, USER),
    "an empty question": (Message("user", ""),),
    "signs": (Message("user", "\U0001f916 \u65e5\u672c \u202e \0 \t \x1b[2J e\u0301"),),
    "what templates consist of": (Message("user", "{{ 1 }} {% raw %} {# no #} \\n %s {0}"),),
    "long": (Message("user", "word " * 200_000),),
    "many": (USER, ANSWER) * 500 + (AGAIN,),
}


@cache
def opened(name: str) -> ChatTemplate:
    found = choose_template({"": TEMPLATES[name]}, Vocabulary(frozenset(), SPECIAL))
    assert found.note is None
    return found.template


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("chat", CHATS)
def test_every_template_takes_every_chat(name: str, chat: str) -> None:
    """And all that was said is in the prompt, in its order: a system message at the latest with its question."""
    render = opened(name)
    assert render.form.folds_system == (name in FOLDS_SYSTEM)
    for tools in (None, TOOLS) if render.takes_tools else (None,):
        text = render(CHATS[chat], tools)
        for message in CHATS[chat]:
            assert text.count(message.content.strip()) >= CHATS[chat].count(message)
        spoken = [message.content.strip() for message in CHATS[chat] if message.role != "system"]
        at = 0
        for each in spoken:
            at = text.index(each, at) + len(each)


CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln", "days": 2}'}}
IDS = ("call_0123456789abcdef", "xy")


def called(n: int, text: str = "") -> tuple[Message, ...]:
    calls = json.dumps([{"id": each, **CALL} for each in IDS[:n]])
    results = (Message("tool", f"sunny {i}", tool_call_id=IDS[i], name="weather") for i in range(n))
    return (USER, Message("assistant", text, tool_calls=calls), *results)


@pytest.mark.parametrize("name", sorted(TAKES_CALLS))
def test_calls_and_their_results(name: str) -> None:
    render = opened(name)
    assert render.takes_calls
    chats: tuple[tuple[Message, ...], ...] = (
        called(1),
        (SYSTEM, *called(1)),
        (*called(1), ANSWER, AGAIN),
        (*called(1, "Let me see."), ANSWER, AGAIN),
    )
    if name != "harmony":  # one call a message, and it passes over others
        chats += (called(2), (*called(2), ANSWER, AGAIN))
    for chat in chats:
        for tools in (None, TOOLS):
            text = render(chat, tools)
            n = sum(message.role == "tool" for message in chat)
            assert text.count("weather") >= n and text.count("Köln") == n
            assert all(f"sunny {i}" in text for i in range(n))
            assert "{'" not in text, "no arguments as Python writes them"
            assert all(message.content in text for message in chat if message.role != "assistant")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_goes_on_from_its_prompt(name: str) -> None:
    """So that what is in the KV cache need not be read again."""
    render = opened(name)
    for begun in ((USER,), (SYSTEM, USER), (USER, ANSWER, AGAIN), (SYSTEM, USER, ANSWER, AGAIN)):
        prompt, longer = render(begun), render((*begun, MORE, USER))
        if name == "harmony":
            assert longer.startswith(prompt + "<|channel|>final<|message|>")
        elif name != "deepseek_r1":  # it begins a thought, which is not in later prompts
            assert longer.startswith(prompt) and MORE.content in longer[len(prompt) : len(prompt) + 40]


@pytest.mark.parametrize(
    ("name", "chat", "text"),
    [
        (
            "gemma_2",
            (SYSTEM, USER),
            "<s><start_of_turn>user\nAnswer in one word.\n\nWie heißt du?<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "gemma_3",
            (USER, AGAIN),
            "<s><start_of_turn>user\nWie heißt du?\n\nUnd wie alt bist du?<end_of_turn>\n<start_of_turn>model\n",
        ),
        ("llama_2", (SYSTEM, USER), "<s>[INST] <<SYS>>\nAnswer in one word.\n<</SYS>>\n\nWie heißt du? [/INST]"),
        (
            "mistral_1",
            (USER, ANSWER, SYSTEM, AGAIN),
            "<s>[INST] Wie heißt du? [/INST]Specee.</s> [INST] Answer in one word.\n\nUnd wie alt bist du? [/INST]",
        ),
        (
            "llama_3",
            (USER, SYSTEM),
            "<s><|start_header_id|>user<|end_header_id|>\n\nWie heißt du?<|eot_id|>"
            "<|start_header_id|>system<|end_header_id|>\n\nAnswer in one word.<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("zephyr", (USER,), "<|user|>\nWie heißt du?</s>\n<|assistant|>\n"),
        (
            "parts_only",
            (SYSTEM, USER),
            "System: Answer in one word.<end_of_utterance>\nUser: Wie heißt du?<end_of_utterance>\nAssistant:",
        ),
        ("query_needed", (SYSTEM,), "<|im_start|>user\nAnswer in one word.<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_prompts_as_the_models_know_them(name: str, chat: tuple[Message, ...], text: str) -> None:
    assert opened(name)(chat) == text


def test_the_environment_is_that_of_transformers() -> None:
    source = """
{%- set ns = namespace(n=0) %}
{%- macro shown(x) %}<{{ x }}>{{ caller() if caller else '' }}{% endmacro %}
{%- for message in messages %}
    {%- if loop.index > 300 %}{% break %}{% endif %}
    {%- set ns.n = ns.n + 1 %}
    {% generation %}
    {%- set ns.inner = message.content[:99999].upper() %}
    {{- shown(ns.inner) }}
    {%- endgeneration %}
{%- endfor %}
{% call shown(1) %}called{% endcall %}
    {% if true %}
indented
    {% endif %}
{{ {'b': 'ä<&', 'a': [1, none, true]} | tojson }}
{{ {'b': 1, 'a': 'ü'} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}
{{ [1] | tojson(indent=2) }}
{%- for key, value in {'x': 1}.items() %} {{ key }}={{ value }}{% endfor %}
{{ messages[-1]['role'].startswith('us') }} {{ 'a,b'.split(',')[::-1] | join('') }} {{ [tools, documents] }}
{{ pad_token }}|{{ unk_token is defined }}|{{ missing is defined }}
"""
    text = ChatTemplate(source, {"pad_token": "<pad>"})(ASK)
    assert text == (
        "<HI><1>calledindented\n"
        '{"b": "ä<&", "a": [1, null, true]}\n{"a":"\\u00fc","b":1}\n[\n  1\n] x=1'
        "True ba [None, None]\n<pad>|False|False"
    )


def test_dates_stay_within_a_chat() -> None:
    """Or all of it would have to be read again."""
    at = [datetime(2026, 3, 1, 23, 59, 58)]
    source = (
        "{{ strftime_now('%d %b %Y %H:%M:%S') }} {{ date_string }} {% for m in messages %}{{ m.content }}|{% endfor %}"
    )
    render = ChatTemplate(source, {}, now=lambda: at[0])
    first = render((SYSTEM, USER))
    assert first.startswith("01 Mar 2026 23:59:58 01 Mar 2026 ")
    at[0] = datetime(2026, 3, 2, 0, 0, 5)
    assert render((SYSTEM, USER, ANSWER, AGAIN)).startswith(first)
    assert render((SYSTEM, AGAIN)).startswith("02 Mar 2026 00:00:05"), "another chat"
    assert render((SYSTEM, USER)).startswith("02 Mar 2026 00:00:05"), "the same question on another day"
    at[0] = datetime(2026, 3, 2, 0, 0, 9)
    assert render((SYSTEM, USER)).startswith("02 Mar 2026 00:00:05"), "again on the same day"
    for i in range(1000):
        render((Message("user", str(i)),))


@pytest.mark.parametrize("guess", GUESSES, ids=lambda guess: guess.name)
def test_what_takes_the_place_of_a_template(guess: Any) -> None:
    name = {"Llama 2": "Llama-2-7b-chat-hf", "Mistral": "Mixtral 8x7B Instruct"}.get(guess.name, guess.name)
    vocabulary = Vocabulary(frozenset((*guess.needs, "<x>")), SPECIAL)
    found = choose_template({}, vocabulary, name if guess.models else "some model")
    assert found.guess is not None and found.guess.name == guess.name and guess.name in (found.note or "")
    for chat in CHATS.values():
        text = found.template(chat)
        assert all(message.content.strip() in text for message in chat)
    assert found.template((USER, ANSWER, AGAIN)).startswith(found.template((USER,)))


def test_a_model_that_suggests_nothing() -> None:
    found = choose_template({}, Vocabulary(frozenset(("<s>", "</s>")), SPECIAL), "pythia-410m")
    assert found.template((SYSTEM, USER, ANSWER, AGAIN)) == (
        "Answer in one word.\n\nUser: Wie heißt du?\n\nAssistant: Specee.\n\nUser: Und wie alt bist du?\n\nAssistant:"
    )
    assert found.note is not None and "plain text" in found.note and "base model" in found.note


@pytest.mark.parametrize(
    ("name", "finetune", "is_base"),
    [
        ("Qwen2.5 0.5B", "Base", True),
        ("gemma-3-1b-pt", None, True),
        ("gemma-3-1b-it", None, False),
        ("SmolLM2 135M Base", None, True),
        ("SmolLM2 135M Instruct", "Instruct", False),
        ("Database Chat", None, False),
        ("Baseten 7B", None, False),
        ("base instruct", None, False),
        ("tiny", None, False),
    ],
)
def test_a_base_model_is_said_to_be_one(tmp_path: Path, name: str, finetune: str | None, is_base: bool) -> None:
    path = tiny_chat.write(tmp_path / "m.gguf", "bpe", (), TEMPLATES["chatml"], name=name, finetune=finetune)
    note = open_model_template(gguf_header.read(path)).note
    assert (note is not None and "base model" in note) == is_base


@pytest.mark.parametrize("form", ["default", "named only", "tool_use only", "broken tool_use"])
def test_named_templates(tmp_path: Path, form: str) -> None:
    """As Command R and Hermes have them: one for chats, one for chats with tools, one for documents."""
    given = {
        "default": TEMPLATES["command_r"],
        "tool_use": TEMPLATES["command_r_tools"] if form != "broken tool_use" else "{% for %}",
        "rag": "{{ documents[0].text }}",
    }
    if form == "named only":
        given["chat"] = given.pop("default")
    if form == "tool_use only":
        given = {"tool_use": given["tool_use"], "rag": given["rag"]}
    templates = [{"name": name, "template": source} for name, source in given.items()]
    path = tiny_chat.write(tmp_path / "m.gguf", "bpe", ("<|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"), templates)
    found = open_model_template(gguf_header.read(path))
    assert found.note is None and found.template.takes_tools == (form != "broken tool_use")
    assert found.template.takes_calls == (form != "broken tool_use")
    text = found.template((SYSTEM, USER))
    assert text.startswith("<s>") and USER.content in text and "documents" not in text
    assert ("START_OF_TURN" in text) == (form != "tool_use only")
    if found.template.takes_tools:
        assert "specee_probe(probed);" in found.template((SYSTEM, USER), TOOLS)
        assert "Köln" in found.template(called(1), TOOLS) and "Köln" in found.template(called(1))


@pytest.mark.parametrize("name", sorted(TAKES_CALLS | {"smollm_3"}))
@pytest.mark.parametrize("given", [(), None, {}, {"properties": {"x": {}}}], ids=str)
def test_tools_that_say_little_of_themselves(name: str, given: Any) -> None:
    render = opened(name)
    function = {"name": "weather"} | ({"parameters": given} if given != () else {})
    tools = json.dumps([{"type": "function", "function": function}])
    assert ("weather" in render((SYSTEM, USER), tools)) == render.takes_tools


TURN = "<|{{ m.role }}|>{{ m.content }}</s>\n"
TURNS = "{% for m in messages %}" + TURN + "{% endfor %}"
OPENING = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        pytest.param(TURNS + OPENING, "<|user|>Hi</s>\n<|assistant|>", id="as usual"),
        pytest.param(TURNS, "<|user|>Hi</s>\n<|assistant|>", id="no prompt for an answer"),
        pytest.param(TURNS + OPENING + "{{ eos_token }}", "<|user|>Hi</s>\n<|assistant|>", id="EOS behind all"),
        pytest.param(TURNS + OPENING + "</s>\n", "<|user|>Hi</s>\n<|assistant|>", id="an end of turn behind all"),
        pytest.param("{% for m in messages %}{{ m.content }}</s>{% endfor %}", "Hi</s>", id="only ends of turns"),
        pytest.param(
            TURNS.replace("{{ m.content }}", "{{ '<think>\n\n</think>' if m.role == 'assistant' }}{{ m.content }}"),
            "<|user|>Hi</s>\n<|assistant|>",
            id="no thought is added",
        ),
    ],
)
def test_a_prompt_ends_where_the_answer_begins(template: str, prompt: str) -> None:
    render = ChatTemplate(template, SPECIAL)
    assert render(ASK) == prompt
    assert render((*ASK, ANSWER, AGAIN)).startswith(prompt.removesuffix("<|assistant|>"))
    assert render((Message("user", "Hi</s>"),)).count("</s>") == prompt.count("</s>") + 1, "what a user says stays"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("m.content[:20]", "cuts what the user says"),
        ("m.content | truncate", "cuts what the user says"),
        ("m.content[-3000:]", "cuts what the user says"),
        ("m.content.split()[:500] | join(' ')", "cuts what the user says"),
        ("m.content | e", "changes characters"),
        ("m.content.split() | join(' ')", "changes characters"),
        ("m.content[:300] if m.role == 'system' else m.content", "cuts the system message"),
    ],
)
def test_a_template_that_cuts_is_not_used(said: str, why: str) -> None:
    template = TURNS.replace("m.content", said) + OPENING
    found = choose_template({"": template}, CHATML)
    assert found.guess is not None and why in (found.note or "")
    assert found.template(ASK) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_that_forgets_is_not_used() -> None:
    found = choose_template({"": TURNS.replace("in messages", "in messages[-6:]") + OPENING}, CHATML)
    assert "leaves out what was said earlier" in (found.note or "")
