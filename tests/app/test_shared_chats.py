"""Two programs that ask in one chat at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

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
