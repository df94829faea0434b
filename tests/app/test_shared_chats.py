"""Two programs that ask in one chat at the same time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specee.app.chat.history.store import Store
from specee.app.engine.protocol import ChatEvent
from specee.app.errors import AppError
from specee.app.options import ChatOptions, PolicyChoice

Make = Callable[..., Any]
DENSE = ChatOptions(PolicyChoice("dense"))


@pytest.mark.parametrize("step", ["add_question", "add_answer", None])
def test_each_answer_is_one_to_its_own_question(
    make_session: Make, monkeypatch: pytest.MonkeyPatch, step: str | None
) -> None:
    """`step`: behind which the other program asks; None: while the answer grows."""
    session = make_session()
    list(session.send("Hi", DENSE))
    store, chat, end = session.store, session.chat.id, session.branch[-1].id
    others = []

    def other_asks() -> None:
        others.append(store.add_question(chat, end, "Theirs"))

    if step is not None:
        add = getattr(store, step)

        def added(*args: Any) -> Any:
            monkeypatch.setattr(store, step, add)
            result = add(*args)
            other_asks()
            return result

        monkeypatch.setattr(store, step, added)
    for event in session.send("Ours", DENSE):
        if step is None and not others and isinstance(event, ChatEvent):
            other_asks()
    assert [m.content for m in session.links[0].sent[-1].messages] == ["Hi", "Hello there.", "Ours"]
    assert [turn.content for turn in session.branch] == ["Hi", "Hello there.", "Ours", "Hello there."]
    list(session.send("More", DENSE))
    assert [turn.content for turn in session.branch][-3:] == ["Hello there.", "More", "Hello there."]
    assert len(store.tree(chat)) == 7 and others


@pytest.mark.parametrize("step", ["add_question", "add_answer"])
def test_a_refused_question_leaves_the_other_one_alone(
    make_session: Make, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    session = make_session()
    list(session.send("Hi", DENSE))
    store, chat, end = session.store, session.chat.id, session.branch[-1].id
    add = getattr(store, step)

    def added(*args: Any) -> Any:
        monkeypatch.setattr(store, step, add)
        result = add(*args)
        store.add_question(chat, end, "Theirs")
        return result

    monkeypatch.setattr(store, step, added)
    with pytest.raises(AppError, match="prompt too long"):
        list(session.send("x" * 500_000, DENSE))
    assert [turn.content for turn in session.branch] == ["Hi", "Hello there."]
    assert [turn.content for turn in store.tree(chat)] == ["Hi", "Hello there.", "Theirs"]


def test_an_answer_that_another_program_writes_is_not_continued(make_session: Make, tmp_path: Path) -> None:
    """Both would write it in one place, and one of the texts would be lost."""
    file = tmp_path / "history.sqlite"
    session = make_session(store=Store(file))
    other = make_session(store=Store(file))
    refused = 0
    for event in session.send("Hi", DENSE):
        if isinstance(event, ChatEvent) and not refused:
            other.resume(session.chat.id)
            with pytest.raises(AppError, match="still being written"):
                list(other.continue_answer(DENSE))
            refused += 1
    assert refused
    other.resume(session.chat.id)
    assert [(turn.content, turn.state) for turn in other.branch] == [("Hi", "complete"), ("Hello there.", "complete")]
    for each in (session, other):
        each.store.close()


def test_an_answer_whose_program_was_killed_is_continued(make_session: Make, tmp_path: Path) -> None:
    """Also by a program that had begun before."""
    file = tmp_path / "history.sqlite"
    other = make_session(store=Store(file))
    code = (
        "import os, sys; from pathlib import Path; from specee.app.chat.history.store import Store\n"
        "store = Store(Path(sys.argv[1])); chat = store.new_chat('Hi', None, {})\n"
        "store.add_answer(chat.id, store.add_question(chat.id, None, 'Hi')); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    other.resume(1)
    assert other.branch[-1].state == "streaming"
    list(other.continue_answer(DENSE))
    assert (other.branch[-1].content, other.branch[-1].state) == ("Hello there.", "complete")
    other.store.close()
