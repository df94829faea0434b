"""BOS once, EOS never, control tokens only by the template, and an end where the template has one: whatever the
vocabulary of the model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_chat
from real_engine import missing_library

from specee.app.chat.session import Session
from specee.app.cli import one_answer
from specee.app.engine import datastore
from specee.app.engine.loading import open_backend
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message
from specee.app.options import NO_DRAFTER, ChatOptions, LoadOptions, PolicyChoice

pytestmark = pytest.mark.skipif(missing_library() is not None, reason=str(missing_library()))

TURNS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + eos_token }}"
    "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)
SETTINGS: tuple[dict[str, bool], ...] = (
    {},
    {"add_bos_token": True},
    {"add_bos_token": False},
    {"add_bos_token": True, "add_eos_token": True},
    {"add_bos_token": False, "add_eos_token": True},
    {"add_bos_token": True, "add_sep_token": True},
)
Open = Callable[..., Any]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Writes a model and opens it."""
    backends = []
    monkeypatch.setattr(datastore, "open_datastores", lambda *args, **kwargs: {})  # of another vocabulary each time

    def open_model(*args: Any, **kwargs: Any) -> Any:
        path = tiny_chat.write(tmp_path / "tiny.gguf", *args, **kwargs)
        load = LoadOptions(model=str(path), n_ctx=512, drafter=NO_DRAFTER, data_dir=str(tmp_path / "data"))
        backends.append(open_backend(load, lambda what, share: None, with_calibration=False))
        return backends[-1]

    yield open_model
    for backend in backends:
        backend.close()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["spm", "bpe"])
@pytest.mark.parametrize("start", ["", "{{ bos_token }}", "{{ bos_token }}<s>", "\n {{ bos_token }}"])
def test_bos_once_and_eos_never(opened: Open, kind: str, start: str, settings: dict[str, bool]) -> None:
    backend = opened(kind, ("[INST]", "[/INST]"), start + TURNS, **settings)
    prompt = make_prompt(backend, (Message("user", "<s>hi</s>"),))
    wanted = bool(start) or settings.get("add_bos_token", kind == "spm")
    assert prompt.tokens.count(1) == wanted and (not wanted or prompt.tokens[0] == 1)
    assert 2 not in prompt.tokens and prompt.tokens[-1] == 4, "it ends where the template ends"
    long = make_prompt(backend, (Message("user", "a"), Message("assistant", "b"), Message("user", "c")))
    assert long.tokens.count(2) == 1, "the template's"


@pytest.mark.parametrize("kind", ["spm", "bpe"])
@pytest.mark.parametrize("name", ["[INST]", "</s>", "<s>", "<unk>", "<|start|>", "<|turn>", "<tool>"])
@pytest.mark.parametrize("around", [("", ""), ("hi", "hi"), (" ", " "), ("hi ", "\n")])
def test_names_of_markers_are_text(opened: Open, kind: str, name: str, around: tuple[str, str]) -> None:
    """Also of those that files call user-defined, which llama.cpp reads as tokens in every text."""
    template = (
        "{% for m in messages %}[INST]<|start|>{{ m.role }}<|turn>{{ m.content }}<|end|>{% endfor %}"
        "{% for tool in tools or [] %}<tool>{{ tool.function.name }}{% endfor %}{{ '!' if add_generation_prompt }}"
    )
    markers = ("<|start|>", "<|turn>", "<|end|>", "<tool>")
    backend = opened(kind, ("[INST]",), template, user_defined=markers, plain=("<b>",))
    text = f"{around[0]}{name}{around[1]}"
    prompt = make_prompt(backend, (Message("user", text),))
    quiet = make_prompt(backend, (Message("user", "hi"),))
    special = {backend.tokenize(each, bos=False)[0] for each in ("[INST]", "</s>", "<s>", "<unk>", *markers)}
    assert [t for t in prompt.tokens if t in special] == [t for t in quiet.tokens if t in special]
    read = b"".join(backend.piece(token, special=True) for token in prompt.tokens).decode()
    space = " " if kind == "spm" else ""  # which the tokenizer puts after control tokens
    assert read.removeprefix("<s>").replace(f"<|start|>{space}", "<|start|>", 1) == (
        f"[INST]<|start|>user<|turn>{space}{text}<|end|>{space}!"
    ), "no space within what was said"


@pytest.mark.parametrize("kind", ["spm", "bpe"])
@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("m.content | replace('/think', '')", "hi<|im_/thinkend|>"),
        ("m.content.replace('/no_think', '').replace('/think', '')", "<|im_/no_/thinkthinkend|>"),
        ("m.content | lower", "<|IM_END|>"),
        ("m.content.split() | join", "<|im_ end|>"),
        ("m.content ~ 'end|>'", "<|im_"),
        ("'<|im_' ~ m.content", "end|>"),
        ("m.content ~ m.content", "end|><|im_"),
    ],
)
def test_no_template_makes_a_marker_of_texts(opened: Open, kind: str, written: str, text: str) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ " + written + " }}<|im_end|>\n{% endfor %}"
    markers = ("<|im_start|>", "<|im_end|>")
    backend = opened(kind, markers, template)
    special = [backend.tokenize(each, bos=False)[0] for each in markers]
    for said in (text, "1 < 2 <b>"):
        prompt = make_prompt(backend, (Message("user", said),))
        assert [token for token in prompt.tokens if token in special] == [*special, special[0]]
        assert "".join(prompt.text.split()).startswith("<|im_start|>user")


@pytest.mark.parametrize(
    ("end", "eos"),
    list(itertools.product(["<|im_end|>", "<end_of_turn>", "<|eot|>", "[|endofturn|]", "<extra_id_1>"], ["</s>"])),
)
def test_an_answer_ends_where_the_template_ends_it(opened: Open, end: str, eos: str) -> None:
    template = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}" + end + "\n{% endfor %}"
    backend = opened("bpe", ("<|start|>", end), template, eos=eos)
    (token,) = backend.tokenize(end, bos=False)
    assert backend.engine.is_stop(token) and backend.engine.is_stop(2)
    assert not any(backend.engine.is_stop(t) for t in backend.tokenize(end, bos=False, special=False))
    assert not backend.engine.is_stop(backend.tokenize("<|start|>", bos=False)[0])


def test_what_also_ends_a_thought_does_not_end_an_answer(opened: Open) -> None:
    template = (
        "{% for m in messages %}<|open|>{{ m.role }}{% if m.thinking %}{{ m.thinking }}<|close|><|open|>{% endif %}"
        "{{ m.content }}<|close|>{% endfor %}"
    )
    backend = opened("bpe", ("<|open|>", "<|close|>"), template)
    assert not backend.engine.is_stop(backend.tokenize("<|close|>", bos=False)[0])


@pytest.mark.parametrize("is_text", [True, False])
def test_a_tag_of_html_does_not_end_an_answer(opened: Open, is_text: bool) -> None:
    """Where the file has it as text, as Gemma's do: llama.cpp takes `</s>` for the end in every vocabulary."""
    template = "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    kinds = {"</s>": tiny_chat.USER_DEFINED} if is_text else {}
    control = ("<start_of_turn>", "<end_of_turn>")
    backend = opened("spm", control, template, eos="<end_of_turn>", kinds=kinds)
    (token,) = backend.tokenize("</s>", bos=False)
    assert token == 2 and backend.engine.is_stop(token) != is_text
    assert backend.piece(token) == (b"</s>" if is_text else b"")
    assert ("</s>" in backend.control_tokens) != is_text


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[INST]{{ m.role }}: {{ m.content }}</s>{% endfor %}[INST]assistant:"
)


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_what_is_said_of_the_template(tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str) -> None:
    """Once, before the answer, and only where it matters."""
    path = tiny_chat.write(tmp_path / "tiny.gguf", "bpe", ("[INST]",), NO_SYSTEM)
    broken = tiny_chat.write(tmp_path / "broken.gguf", "bpe", ("<|im_start|>", "<|im_end|>"), "{% if %}")
    for model, system, said in (
        (path, "Be brief.", "no place for a system message"),
        (path, None, None),
        (broken, None, "guessed as ChatML"),
    ):
        load = LoadOptions(model=str(model), n_ctx=512, drafter=NO_DRAFTER, data_dir=str(tmp_path / "data"))
        session = Session(load, system=system)
        options = ChatOptions(PolicyChoice("dense"), max_tokens=2)
        try:
            for _ in range(2):
                one_answer.ask(session, "Hi", options, form)
        finally:
            session.close()
        out, err = capfd.readouterr()
        told = out if form == "jsonl" else err
        assert told.count("chat template") == (said is not None) and (said or "") in told
