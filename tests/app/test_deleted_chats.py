"""Chats that another program deletes while they are in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from specee.app.chat.session import Session
from specee.app.engine.protocol import ChatEvent, Done
from specee.app.errors import FAILURE, AppError
from specee.app.options import ChatOptions, PolicyChoice

Make = Callable[..., Any]
DENSE = ChatOptions(PolicyChoice("dense"))


def delete(session: Session) -> None:
    assert session.chat is not None
    session.store.delete_chat(session.chat.id)


@pytest.mark.parametrize(
    "use",
    [
        lambda session: list(session.send("More?", DENSE)),
        lambda session: list(session.edit(session.branch[0].id, "Else?", DENSE)),
        lambda session: list(session.answer_again(DENSE)),
        lambda session: list(session.continue_answer(DENSE)),
        lambda session: session.switch_branch(session.branch[0].id),
        lambda session: session.set_system("Be kind."),
        lambda session: session.make_room(),
    ],
)
def test_what_is_asked_next_begins_a_new_chat(make_session: Make, use: Callable[[Session], object]) -> None:
    session = make_session()
    for question in ("Hi", "Ho"):
        list(session.send(question, DENSE))
    delete(session)
    with pytest.raises(AppError, match="this chat is gone") as caught:
        use(session)
    assert caught.value.exit_code == FAILURE
    assert session.chat is None and session.branch == () and session.store.chats() == []
    list(session.send("Again", DENSE))
    assert [turn.content for turn in session.branch] == ["Again", "Hello there."]
    assert [chat.title for chat in session.store.chats()] == ["Again"]


def test_an_answer_is_finished_first(make_session: Make) -> None:
    session = make_session()
    events = []
    with pytest.raises(AppError, match="this chat is gone"):
        for event in session.send("Hi", DENSE):
            events.append(event)
            if isinstance(event, ChatEvent) and event.index == 2:
                delete(session)
    assert "".join(event.text for event in events if isinstance(event, ChatEvent)) == "Hello there."
    assert isinstance(events[-1], Done) and session.chat is None
    list(session.send("Again", DENSE))
    assert len(session.branch) == 2


def test_a_reader_that_stops_listening_to_a_deleted_chat(make_session: Make) -> None:
    session = make_session()
    events = session.send("Hi", DENSE)
    while not isinstance(next(events), ChatEvent):
        pass
    delete(session)
    with pytest.raises(AppError, match="this chat is gone"):
        events.close()
    assert session.chat is None


def test_a_refused_question_of_a_deleted_chat(make_session: Make, make_backend: Make) -> None:
    session = make_session(make_backend(n_ctx=40))
    list(session.send("Hi", DENSE))
    add = session.store.add_answer

    def add_and_delete(*arguments: Any) -> Any:
        recorder = add(*arguments)
        delete(session)
        return recorder

    session.store.add_answer = add_and_delete
    with pytest.raises(AppError, match="this chat is gone"):
        list(session.send("x" * 100, DENSE))
    session.store.add_answer = add
    assert session.chat is None and list(session.send("Again", DENSE))
