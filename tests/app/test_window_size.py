"""How large the context window is, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from real_engine import missing_model

from specee.app import memory
from specee.app.engine import window_size
from specee.app.engine.client import EngineClient
from specee.app.engine.prompt_length import shorter_or_larger
from specee.app.engine.protocol import Generate, Message, ModelInfo, Notice
from specee.app.errors import AppError
from specee.app.options import ChatOptions, LoadOptions

KIB = 1024
NO_MODEL = missing_model()
needs_model = pytest.mark.skipif(NO_MODEL is not None, reason=str(NO_MODEL))


@pytest.mark.parametrize(
    ("wanted", "trained", "free", "n_ctx", "said"),
    [
        (None, 8192, None, 4096, None),
        (None, 2048, None, 2048, None),
        (None, 0, 10**12, 4096, None),
        (2048, 2048, None, 2048, None),
        (2049, 2048, None, 2048, "trained for no more"),
        (100_000, 0, None, 100_000, None),
        (None, 8192, 2000 * KIB, 1792, "are free: it is 1792 tokens now"),
        (1024, 8192, 2000 * KIB, 1024, None),
    ],
)
def test_sizes(wanted: int | None, trained: int, free: int | None, n_ctx: int, said: str | None) -> None:
    """With a KiB a token."""
    chosen = window_size.choose(wanted, trained, KIB, free)
    assert chosen.n_ctx == n_ctx
    assert chosen.notice is None if said is None else said in (chosen.notice or "")


@pytest.mark.parametrize(
    ("wanted", "free", "says"),
    [
        (4096, 2000 * KIB, "takes 4.2 MB of memory, 2.0 MB are free; take --ctx 1792"),
        (4096, 300 * KIB, "close other programs"),
        (None, 300 * KIB, "take a smaller model"),
    ],
)
def test_too_little_memory(wanted: int | None, free: int, says: str) -> None:
    with pytest.raises(AppError, match="out of memory") as refused:
        window_size.choose(wanted, 8192, KIB, free)
    assert says in refused.value.message


def test_half_of_the_memory_is_advised_where_it_helps() -> None:
    for free, kv_type, helps in ((3000 * KIB, "f16", True), (2000 * KIB, "f16", False), (3000 * KIB, "q8_0", False)):
        with pytest.raises(AppError) as refused:
            window_size.choose(4096, 8192, KIB, free, kv_type)  # type: ignore[arg-type]
        assert ("--kv-type q8_0" in refused.value.message) is helps


def test_no_advice_that_cannot_help(make_backend: Any, make_session: Any) -> None:
    info = ModelInfo("m", "m.gguf", "llama", 2, 512, 2)
    assert "--ctx" in str(info.larger_window)
    assert "8192" in str(dataclasses.replace(info, trained_ctx=8192).larger_window)
    assert dataclasses.replace(info, trained_ctx=512).larger_window is None
    backend = make_backend(n_ctx=64)
    for trained, longest in ((128, 127), (64, 0), (0, 1_000_000)):
        backend.info = dataclasses.replace(backend.info, trained_ctx=trained)
        for text in ("x" * 100, "x" * 200, "x" * 100_000):
            session = make_session(backend)
            with pytest.raises(AppError) as refused:
                list(session.send(text, ChatOptions()))
            assert ("--ctx" in refused.value.line) is (len(text) < longest)
            assert "new chat" not in refused.value.line, "it is one"
    chat = (Message("user", "Hi"), Message("assistant", "Hi"), Message("user", "x" * 100))
    assert "new chat" in shorter_or_larger(backend, chat, 100)


@pytest.mark.parametrize(
    ("written", "tools", "chat", "says"),
    [
        (90, None, (Message("user", "Hi"),), "template alone takes more; take another model"),
        (9, json.dumps("x" * 90), (Message("user", "Hi"),), "the list of tools alone takes more; give fewer tools"),
        (9, None, (Message("system", "x" * 90), Message("user", "Hi")), "shorten the system message"),
        (9, None, (Message("system", "x"), Message("user", "x" * 90)), "64; shorten it, or give a larger --ctx"),
    ],
)
def test_what_is_too_long_is_named(
    make_backend: Any, make_link: Any, written: int, tools: str | None, chat: tuple[Message, ...], says: str
) -> None:
    backend = make_backend(n_ctx=64)
    format_chat = backend.format
    backend.format = lambda messages, *given: "." * written + format_chat(messages, *given)
    failed = make_link(backend).answer(Generate(1, chat, ChatOptions(), tools=tools))[-1]
    assert says in failed.message and ("shorten it" in failed.message) is ("shorten it" in says)


@needs_model
def test_a_window_beyond_what_the_model_was_trained_for(tmp_path: Path) -> None:
    """Said once, also where the engine is started again."""
    client = EngineClient(LoadOptions(n_ctx=100_000, data_dir=str(tmp_path)))
    said = [event.text for event in client.open() if isinstance(event, Notice)]
    assert said == ["the context window is 8192 tokens, not 100000: the model was trained for no more"]
    assert client.info is not None and client.info.n_ctx == 8192
    client.kill()
    events = list(client.generate((Message("user", "Hi"),), ChatOptions(max_tokens=2)))
    assert events and not any(isinstance(event, Notice) for event in events)
    client.close()


@needs_model
def test_a_window_that_the_memory_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specee.app.engine.loading import open_backend

    monkeypatch.setattr(memory, "free_ram", lambda: 100_000_000)
    with pytest.raises(AppError, match="take --ctx 3840"):
        open_backend(LoadOptions(n_ctx=8000, data_dir=str(tmp_path)), lambda what, fraction: None)
    backend = open_backend(LoadOptions(data_dir=str(tmp_path)), lambda what, fraction: None)
    assert backend.info.n_ctx == 3840 and "it is 3840 tokens now" in backend.notices[0]
    backend.close()
