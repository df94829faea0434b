"""An answer on standard output that does not come to its end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from specee.app.cli import one_answer
from specee.app.engine.protocol import ChatEvent
from specee.app.errors import AppError


@pytest.mark.parametrize(("kept", "says"), [("Hello", "is kept"), ("Hel", "is not, or not all of it, in the history")])
def test_an_error_within_an_answer_begins_a_line(capsys: pytest.CaptureFixture[str], kept: str, says: str) -> None:
    turn = SimpleNamespace(role="assistant", content=kept)
    session: Any = SimpleNamespace(branch=(turn,), store=SimpleNamespace(is_kept=True))
    printer = one_answer._Text(session)
    refused = pytest.raises(AppError, match=f"full; the answer above {says}")
    with refused, one_answer._told_below_the_answer(session, printer):
        printer(ChatEvent(0, "Hello", 1, 30, "verified", 0.0))
        raise AppError("the history cannot be used", "full")
    assert capsys.readouterr().out == "Hello\n"


def test_an_error_before_an_answer_stays_as_it_is() -> None:
    session: Any = SimpleNamespace(branch=())
    with pytest.raises(AppError) as caught, one_answer._told_below_the_answer(session, one_answer._Text(session)):
        raise AppError("x", "full")
    assert caught.value.message == "full"


def test_a_token_that_ends_a_marker_and_begins_the_answer_belongs_to_it() -> None:
    marker = ChatEvent(0, "", 9, 1, "verified", 0.0, channel="thought")
    tokens = one_answer._tokens([marker, replace(marker, text="A", channel="answer")])
    assert [(token["channel"], token["text"]) for token in tokens] == [("answer", "A")]
