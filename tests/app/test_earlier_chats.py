"""Drafts from the user's earlier chats: at once, as long as these are kept, and only if the user wants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_engine import missing_model

from specee.app.chat.history.store import Store
from specee.app.engine.answering import Answerer
from specee.app.engine.datastore import HISTORY, EarlierChats
from specee.app.engine.decode import decode
from specee.app.engine.loading import open_backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import ChatEvent, Generate, Message
from specee.app.options import PLAIN_GREEDY, ChatOptions, LoadOptions, PolicyChoice


def keep(store: Store, answer: str) -> int:
    """A chat with this answer; its number."""
    chat = store.new_chat("names", None, {})
    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, "q"))
    recorder.add(ChatEvent(0, answer, 1, 30, "verified", 0.0))
    recorder.finish("complete")
    return chat.id


def characters(text: str) -> list[int]:
    return list(text.encode())


def test_what_was_answered_drafts_until_it_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    tokenized: list[str] = []

    def tokenize(text: str) -> list[int]:
        tokenized.append(text)
        return characters(text)

    earlier = EarlierChats(tokenize, path)
    assert earlier.guess(characters("Quor")) is None
    store = Store(path)
    first = keep(store, "Quorvex")
    assert earlier.guess(characters("Quor")) is None, "it is read when a chat begins"
    earlier.read()
    assert earlier.guess(characters("Quor"))[0] == ord("v")  # type: ignore[index]
    second = keep(store, "Blimdar")
    earlier.read()
    earlier.read()
    assert tokenized == ["Quorvex", "Blimdar"], "each text once"
    assert earlier.guess(characters("Bli"))[0] == ord("m")  # type: ignore[index]
    store.delete_chat(first)
    earlier.read()
    assert earlier.guess(characters("Quor")) is None
    assert earlier.guess(characters("Bli"))[0] == ord("m")  # type: ignore[index]
    store.delete_chat(second)
    earlier.read()
    assert earlier.guess(characters("Bli")) is None
    store.close()


def test_a_new_chat_begins_with_what_is_kept(make_backend: Any) -> None:
    backend = make_backend()
    answerer = Answerer(backend, Measurements())
    chats = ("Hi",), ("Hi", "Hello there.", "And?"), ("Hi",)
    for number, texts in enumerate(chats):
        messages = tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts))
        answerer.add(Generate(number, messages, ChatOptions(PolicyChoice("dense"))), lambda message: None)
        while answerer.busy:
            answerer.turn()
    assert backend.chats == 2, "a chat that goes on does not begin"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if (why := missing_model()) is not None:
        pytest.skip(why)
    yield tmp_path


def answer(backend: Any, policy: PolicyChoice) -> tuple[str, set[str]]:
    """To a question that begins a chat: its text, and what drafted."""
    backend.begin_chat()
    prompt = make_prompt(backend, (Message("user", "Name three rivers and say where each one ends."),)).tokens
    backend.engine.roll_back(0)
    backend.engine.prefill(prompt)
    state, events = decode(backend, backend.policy(policy), prompt, PLAIN_GREEDY, 1, 40)
    text = b"".join(backend.piece(event.token) for event in events)
    return text.decode(), {name for name, counts in state.stats.drafts.items() if sum(counts.accepted)}


def test_the_embedded_model_drafts_from_chats_that_are_there(folder: Path) -> None:
    store = Store(folder / "history.sqlite")
    load = LoadOptions(n_ctx=512, data_dir=str(folder))
    backend = open_backend(load, lambda what, share: None)
    chain = PolicyChoice("chain", draft_length=3)
    text, _ = answer(backend, PolicyChoice("dense"))
    assert HISTORY not in answer(backend, chain)[1]
    chat = keep(store, text)
    again, drafters = answer(backend, chain)
    assert again == text and HISTORY in drafters, "at once"
    store.delete_chat(chat)
    assert HISTORY not in answer(backend, chain)[1], "deleted with the chat"
    backend.close()
    keep(store, text)
    backend = open_backend(replace(load, chats=False), lambda what, share: None)
    assert answer(backend, chain)[0] == text and HISTORY not in answer(backend, chain)[1]
    backend.close()
    store.close()
