"""Thoughts on their way through the engine: events, figures, prompts, limits and grammars."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import ChatEvent, Done, Generate, Message, TokenEvents
from specee.app.engine.template_guess import PLAIN
from specee.app.engine.thinking import HARMONY, Thinking
from specee.app.engine.thought_splitter import ThoughtForm
from specee.app.options import ChatOptions, PolicyChoice, Sampling
from specee.app.serve.call_reader import CallReader
from specee.app.serve.request import CompletionRequest

Make = Callable[..., Any]
STOP = 256
TAGS = ThoughtForm("<think>", "</think>", "<think>\n", "\n</think>\n\n")
ALWAYS = Thinking(TAGS, "always")
SWITCHED = Thinking(TAGS, "on", {"on": {"enable_thinking": True}, "off": {"enable_thinking": False}})
POLICIES = ("dense", "chain", "exact")


def answer(
    backend: Any, make_link: Make, *messages: Message, continue_answer: bool = False, **options: Any
) -> tuple[list[ChatEvent], Any]:
    """The verified events and the figures."""
    policy = PolicyChoice(options.pop("policy", "dense"))
    asked = Generate(
        1, messages or (Message("user", "Hi"),), ChatOptions(policy, Sampling(), **options), continue_answer
    )
    sent = make_link(backend).answer(asked)
    assert isinstance(sent[-1], Done), sent[-1]
    events = [event for message in sent if isinstance(message, TokenEvents) for event in message.events]
    return [event for event in events if event.state == "verified"], sent[-1].stats


def text(events: list[ChatEvent], channel: str) -> str:
    return "".join(event.text for event in events if event.channel == channel)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("opened", [False, True])
def test_the_channels_of_an_answer(make_backend: Make, make_link: Make, policy: str, opened: bool) -> None:
    script = "Let me see.\n</think>\n\nIt is é."
    backend = make_backend(("" if opened else "<think>\n").encode() + script.encode())
    backend.thinking = ALWAYS
    if opened:
        _open(backend)
    events, stats = answer(backend, make_link, policy=policy)
    assert text(events, "thought") == "Let me see." and text(events, "answer") == "It is é."
    assert [event.index for event in events if not event.stop] == list(range(stats.tokens))
    before = len("" if opened else "<think>\n") + len("Let me see.\n</think>")
    assert stats.thought_tokens == before and stats.tokens - before == len("\n\nIt is \u00e9.".encode())
    assert stats.stop_reason == "stop" and not stats.thought_cut and stats.thought_seconds >= 0
    assert {event.channel for event in events if event.index < before} == {"thought"}


def _open(backend: Any) -> None:
    """Its prompts begin a thought; the script is read from there on."""
    backend.format = lambda messages, *_: "".join(f"{m.role[0]}:{m.content}\0" for m in messages) + "a:<think>\n"
    backend.thinking = Thinking(TAGS, "always", opened=frozenset(("auto", "on", "off")))
    for engine in backend.engine.slots:
        engine.script = [*b"<think>\n", *engine.script]


@pytest.mark.parametrize("script", [b"<b>bold</b>", b" <think", b"<", b"\n\n", b""])
def test_an_answer_without_thoughts_is_as_ever(make_backend: Make, make_link: Make, script: bytes) -> None:
    backend = make_backend(script)
    backend.thinking = ALWAYS
    events, stats = answer(backend, make_link)
    assert text(events, "answer") == script.decode() and text(events, "thought") == ""
    assert stats.thought_tokens == 0 and stats.tokens == len(script)
    assert [event.index for event in events if not event.stop][: len(script)] == list(range(len(script)))


def test_a_stop_sequence_is_looked_for_in_the_answer(make_backend: Make, make_link: Make) -> None:
    backend = make_backend(b"<think>1. END\n</think>\nTwo END three")
    backend.thinking = ALWAYS
    events, stats = answer(backend, make_link, stop=("END",))
    assert text(events, "thought") == "1. END" and text(events, "answer") == "Two "
    assert stats.stop_reason == "stop"


@pytest.mark.parametrize(("limit", "cut"), [(12, True), (27, True), (30, False)])
def test_a_thought_that_the_longest_answer_cuts(make_backend: Make, make_link: Make, limit: int, cut: bool) -> None:
    backend = make_backend(b"<think>\nLet me see</think>\n\nYes, it is.")
    backend.thinking = ALWAYS
    _, stats = answer(backend, make_link, max_tokens=limit)
    assert stats.stop_reason == "length" and stats.thought_cut is cut


@pytest.mark.parametrize("policy", POLICIES)
def test_a_thought_that_is_too_long_is_ended(make_backend: Make, make_link: Make, policy: str) -> None:
    thought = b"<think>\nOne, two, three"
    closing = TAGS.closing.encode()
    backend = make_backend(thought + closing + b"Four.")
    backend.thinking = ALWAYS
    events, stats = answer(backend, make_link, policy=policy, think_tokens=len(thought))
    assert text(events, "thought") == "One, two, three" and text(events, "answer") == "Four."
    assert stats.thought_closed and stats.thought_tokens == len(thought)
    assert stats.tokens == len(thought) + len("Four.") and stats.stop_reason == "stop"
    assert [event.index for event in events if not event.stop] == list(range(stats.tokens))
    assert bytes(t for t in backend.engine.tokens if t < STOP).endswith(thought + closing + b"Four.")
    assert stats.policy_stats["tokens"] == stats.tokens + 1  # and the stop token
    assert all(sampler.closed for sampler in backend.samplers)


def test_a_thought_that_ends_in_time_is_left_alone(make_backend: Make, make_link: Make) -> None:
    backend = make_backend(b"<think>One</think>Two")
    backend.thinking = ALWAYS
    events, stats = answer(backend, make_link, think_tokens=100)
    assert text(events, "answer") == "Two" and not stats.thought_closed


GRAMMAR = 'root ::= "{" [a-z]* "}"'


@pytest.mark.parametrize("policy", POLICIES)
def test_a_grammar_is_for_the_answer(make_backend: Make, make_link: Make, policy: str) -> None:
    backend = make_backend(b"<think>\nA { here.\n</think>\n\n{a}")
    backend.thinking = ALWAYS
    events, stats = answer(backend, make_link, policy=policy, grammar=GRAMMAR)
    assert text(events, "thought") == "A { here." and text(events, "answer") == "{a}"
    assert backend.grammars == [GRAMMAR, None, GRAMMAR]  # the first one is checked before anything is read
    assert stats.stop_reason == "stop" and not stats.thought_closed
    assert [event.index for event in events if not event.stop] == list(range(stats.tokens))
    generated = backend.samplers[-1].accepted
    assert bytes(t for t in generated if t < 256).endswith(b"</think>\n\n{a}")


def test_a_grammar_where_the_model_does_not_think_after_all(make_backend: Make, make_link: Make) -> None:
    backend = make_backend(b"{a}")
    backend.thinking = ALWAYS
    events, stats = answer(backend, make_link, grammar=GRAMMAR)
    assert text(events, "answer") == "{a}" and stats.tokens == 3 and stats.thought_tokens == 0
    assert backend.grammars[-1] == GRAMMAR
    assert [event.index for event in events if not event.stop] == [0, 1, 2]


def test_a_grammar_where_the_thought_does_not_end(make_backend: Make, make_link: Make) -> None:
    backend = make_backend(b"<think>\nNo.")
    backend.thinking = ALWAYS
    backend.engine.script[-1:] = [STOP, *TAGS.closing[1:].encode(), *b"{a}", STOP]
    events, _ = answer(backend, make_link, grammar=GRAMMAR)
    assert text(events, "thought") == "No." and text(events, "answer") == "{a}"


@pytest.mark.parametrize("thinking", [Thinking(), Thinking(TAGS, "never"), SWITCHED])
def test_a_grammar_holds_at_once_without_thoughts(make_backend: Make, make_link: Make, thinking: Thinking) -> None:
    backend = make_backend(b"{a}")
    backend.thinking = thinking
    answer(backend, make_link, grammar=GRAMMAR, think="off")
    assert backend.grammars == [GRAMMAR]


def test_the_template_is_told(make_backend: Make, make_link: Make) -> None:
    backend = make_backend()
    backend.thinking = SWITCHED
    given: list[Any] = []
    make_text = backend.format

    def format_chat(messages: Any, tools: Any = None, variables: Any = None) -> str:
        given.append(variables)
        return str(make_text(messages, tools))

    backend.format = format_chat
    for slot in (backend,):
        for think in ("auto", "on", "off"):
            make_prompt(slot, (Message("user", "Hi"),), think=think)
    assert given == [{}, {"enable_thinking": True}, {"enable_thinking": False}]


def test_earlier_thoughts_are_in_no_prompt(make_backend: Make) -> None:
    backend = make_backend()
    backend.thinking = ALWAYS
    chat = (
        Message("user", "Hi"),
        Message("assistant", "Two", thought="One"),
        Message("user", "And?"),
        Message("assistant", "<think>\nThree\n</think>\n\nFour"),  # as some programs send it
        Message("user", "So?"),
    )
    prompt = make_prompt(backend, chat).text
    assert "One" not in prompt and "Three" not in prompt and "Two" in prompt and "Four" in prompt


def test_thoughts_between_calls_of_tools_are_for_the_template(make_backend: Make) -> None:
    backend = make_backend()
    backend.thinking = ALWAYS
    backend.format = lambda messages, *_: "".join(f"{m.role}:{m.thought}:{m.content}\0" for m in messages)
    call = '[{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]'
    before = (Message("user", "Hi"), Message("assistant", "", tool_calls=call, thought="Old"), Message("tool", "1"))
    chat = (
        *before,
        Message("user", "Ho"),
        Message("assistant", "", tool_calls=call, thought="New"),
        Message("tool", "2"),
    )
    prompt = make_prompt(backend, chat).text
    assert "New" in prompt and "Old" not in prompt


@pytest.mark.parametrize(
    ("begun", "prompt", "place", "n_thought"),
    [
        (Message("assistant", "", thought="One, "), "u:Hi\0a:<think>\nOne, ", "thought", 5),
        (Message("assistant", "Two", thought="One"), "u:Hi\0a:<think>\nOne\n</think>\n\nTwo", "answer", 3),
        (Message("assistant", "Two"), "u:Hi\0a:Two", "answer", 0),
    ],
)
def test_an_answer_goes_on(make_backend: Make, begun: Message, prompt: str, place: str, n_thought: int) -> None:
    backend = make_backend()
    backend.thinking = ALWAYS
    made = make_prompt(backend, (Message("user", "Hi"), begun), continue_answer=True)
    assert (made.text, made.place, made.n_thought, made.goes_on) == (prompt, place, n_thought, True)


def test_an_answer_goes_on_within_its_thought(make_backend: Make, make_link: Make) -> None:
    backend = make_backend(b"<think>\nOne, two\n</think>\n\nThree.")
    backend.thinking = ALWAYS
    begun = Message("assistant", "", thought="One,")
    events, stats = answer(backend, make_link, Message("user", "Hi"), begun, continue_answer=True)
    assert text(events, "thought") == " two" and text(events, "answer") == "Three."
    assert stats.prompt_thought_tokens == len("One,")


def test_control_tokens_are_marks_where_the_model_writes_them(make_backend: Make, make_link: Make) -> None:
    """A marker that is a control token has no text of its own."""
    backend = make_backend(b"\x02One\x03Two")
    form = ThoughtForm("<|t|>", "<|/t|>")
    backend.thinking = Thinking(form, "always").with_tokens({"<|t|>": 2, "<|/t|>": 3, "<|other|>": 4})
    piece = backend.piece
    names = {2: b"<|t|>", 3: b"<|/t|>"}
    backend.piece = lambda token, special=False: (names[token] if special else b"") if token in names else piece(token)
    for slot in make_link(backend).answerer._slots:
        assert slot.backend.thinking.marks.keys() == {2, 3}
    events, _ = answer(backend, make_link)
    assert text(events, "thought") == "One" and text(events, "answer") == "Two"


def test_the_tokens_of_a_cut_answer_are_kept_whatever_spaces_it_had(make_backend: Make, make_link: Make) -> None:
    backend = make_backend(b"<think> \n\n One, two\n\n\n</think>Three. Four")
    backend.thinking = ALWAYS
    link = make_link(backend)

    def ask(*messages: Message, goes_on: bool = False, limit: int = 100) -> list[ChatEvent]:
        options = ChatOptions(PolicyChoice("dense"), Sampling(), limit)
        sent = link.answer(Generate(1, messages, options, goes_on))
        return [event for message in sent if isinstance(message, TokenEvents) for event in message.events]

    question = Message("user", "Hi")
    for cut, thought, said in ((15, "One,", ""), (36, "One, two", "Three.")):
        begun = ask(question, limit=cut)
        assert (text(begun, "thought"), text(begun, "answer")) == (thought, said)
        rest = ask(question, Message("assistant", said, thought=thought), goes_on=True)
        (engine,) = backend.engine.slots
        assert bytes(t for t in engine.tokens if t < STOP) == b"u:Hia:<think> \n\n One, two\n\n\n</think>Three. Four"
        assert thought + text(rest, "thought") == "One, two"
        assert said + text(rest, "answer") == "Three. Four"
    other = ask(Message("user", "Ho"), Message("assistant", "", thought="One,"), goes_on=True)
    assert text(other, "answer")  # another question: nothing is taken from there
    assert bytes(t for t in engine.tokens if t < STOP).startswith(b"u:Hoa:<think>\nOne,")


NAMES = {"<|channel|>": 2, "<|message|>": 3, "<|end|>": 4, "<|start|>": 5, "<|constrain|>": 6}


def in_channels(make_backend: Make, script: str) -> Any:
    """A model that writes as gpt-oss does; the names of its control tokens are no text."""
    numbers = {name: chr(number) for name, number in NAMES.items()}

    def as_tokens(text: str) -> str:
        for name, number in numbers.items():
            text = text.replace(name, number)
        return text

    backend = make_backend(as_tokens(script).encode())
    backend.thinking = Thinking(HARMONY, "always").with_tokens(NAMES)
    piece, tokenize = backend.piece, backend.tokenize
    names = {number: name.encode() for name, number in NAMES.items()}
    backend.piece = lambda token, special=False: (names[token] if special else b"") if token in names else piece(token)
    backend.tokenize = lambda text, bos, special=True, **_: tokenize(as_tokens(text) if special else text, bos=bos)
    return backend


ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
NEXT = "<|end|><|start|>assistant"


def test_channels_of_control_tokens(make_backend: Make, make_link: Make) -> None:
    script = f"{ANALYSIS}One{NEXT}<|channel|>commentary<|message|>Wait. {NEXT}{ANALYSIS}Two{NEXT}{FINAL}Three"
    events, stats = answer(in_channels(make_backend, script), make_link)
    assert text(events, "thought") == "One\n\nTwo" and text(events, "answer") == "Wait. Three"
    assert [event.index for event in events if not event.stop] == list(range(stats.tokens))


def test_a_grammar_behind_channels(make_backend: Make, make_link: Make) -> None:
    backend = in_channels(make_backend, f"{ANALYSIS}One{NEXT}{FINAL}{{a}}")
    events, _ = answer(backend, make_link, grammar=GRAMMAR)
    assert text(events, "thought") == "One" and text(events, "answer") == "{a}"
    without = in_channels(make_backend, f"{FINAL}{{a}}")
    events, stats = answer(without, make_link, grammar=GRAMMAR)
    assert text(events, "answer") == "{a}" and stats.tokens == 3


def test_a_thought_in_a_channel_that_is_too_long(make_backend: Make, make_link: Make) -> None:
    backend = in_channels(make_backend, f"{ANALYSIS}One{NEXT}{FINAL}Two")
    length = 1 + len("analysis") + 1 + len("One")
    events, stats = answer(backend, make_link, think_tokens=length)
    assert text(events, "thought") == "One" and text(events, "answer") == "Two" and stats.thought_closed


def test_control_tokens_that_are_no_mark_stay_without_text(make_backend: Make, make_link: Make) -> None:
    events, _ = answer(in_channels(make_backend, f"{FINAL}a<|constrain|>b<|message|>c"), make_link)
    assert text(events, "answer") == "abc"


@pytest.mark.parametrize(
    "call",
    [
        f"{ANALYSIS}One{NEXT}<|channel|>commentary to=functions.weather <|constrain|>json<|message|>",
        f"{ANALYSIS}One{NEXT} to=functions.weather<|channel|>commentary json<|message|>",
        f"{ANALYSIS}One{NEXT}<|channel|>commentary<|message|>{NEXT} to=functions.weather<|channel|>commentary json"
        "<|message|>",
    ],
)
def test_a_call_in_a_channel(make_backend: Make, make_link: Make, call: str) -> None:
    events, _ = answer(in_channels(make_backend, call + '{"city": "Rome"}'), make_link)
    given = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "tools": [given]}).encode()
    reader = CallReader(CompletionRequest.read(body, ChatOptions(), takes_tools=True).tools)
    shown = "".join(reader.add(event.text) for event in events if event.channel == "answer") + reader.end()
    assert text(events, "thought") == "One" and shown == ""
    assert [one["function"] for one in reader.calls] == [{"name": "weather", "arguments": '{"city": "Rome"}'}]


def test_an_answer_ends_where_the_next_question_begins(make_backend: Make, make_link: Make) -> None:
    """Where only text marks turns."""
    backend = make_backend(b"Four.\n\nUser: And 3 + 3?\n\nAssistant: Six.")
    backend.turn_stops = PLAIN.stops
    events, stats = answer(backend, make_link)
    assert text(events, "answer") == "Four." and stats.stop_reason == "stop"
