"""Models that keep a running state, which cannot go back: they answer densely, and their chats stay right."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from real_engine import missing_model

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_archs

from specee.app.engine.answering import Answerer
from specee.app.engine.loading import open_backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.protocol import ChatEvent, Done, Generate, Message, TokenEvents
from specee.app.options import PLAIN_GREEDY, ChatOptions, LoadOptions, PolicyChoice
from specee.models import embedded
from specee.native.engine import Cancelled, RowEngine, Sampler

pytestmark = pytest.mark.skipif(missing_model() is not None, reason=str(missing_model()))

NAMES = ("mamba", "rwkv7", "jamba")
"""All layers recurrent, or some."""
OPTIONS = ChatOptions(PolicyChoice("auto"), PLAIN_GREEDY, 8)
FIRST = Message("user", "Name three rivers and say where each one ends, in a sentence each.")
SECOND = Message("user", "And which of them is the longest one of all?")


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the embedded model's vocabulary."""
    path = tmp_path_factory.mktemp("recurrent") / f"{request.param}.gguf"
    return tiny_archs.write(path, request.param, vocabulary=embedded.path())


def load(model: Path, n_slots: int = 1) -> Any:
    options = LoadOptions(str(model), n_ctx=512, n_slots=n_slots, data_dir=str(model.parent))
    return open_backend(options, lambda what, share: None)


@pytest.fixture(scope="module")
def backend(model: Path) -> Iterator[Any]:
    with closing(load(model)) as backend:
        yield backend


class Chat:
    """Answers of one engine."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.answerer = backend, Answerer(backend, Measurements())
        self.sent: dict[int, list[Any]] = {}

    def ask(self, *messages: Message, number: int = 1) -> None:
        self.sent[number] = []
        self.answerer.add(Generate(number, messages, OPTIONS), self.sent[number].append)

    def answer(self, *messages: Message) -> tuple[str, Any]:
        """The text and the statistics."""
        self.ask(*messages)
        self.run()
        return self.text(1), self.stats(1)

    def run(self) -> None:
        while self.answerer.busy:
            self.answerer.turn()

    def events(self, number: int) -> list[ChatEvent]:
        return [
            event
            for sent in self.sent[number]
            if isinstance(sent.message, TokenEvents)
            for event in sent.message.events
        ]

    def text(self, number: int) -> str:
        return "".join(event.text for event in self.events(number))

    def stats(self, number: int) -> Any:
        done = self.sent[number][-1].message
        assert isinstance(done, Done), done
        return done.stats

    def is_dense(self, number: int = 1, slot: int = 0) -> bool:
        """Whether the answer is what the model says after the same prompt when it has read nothing else."""
        answer = [event.token for event in self.events(number)]
        engine = self.backend.engine.slots[slot]
        prompt = engine.tokens[: -(len(answer) - 1)]
        assert [*engine.tokens, answer[-1]] == prompt + answer
        other = RowEngine(engine.model, n_ctx=512)
        with closing(other), closing(Sampler(engine.model)) as greedy:
            other.prefill(prompt)
            for token in answer:
                if other.greedy(0, greedy) != token:
                    return False
                other.forward(token)
        return True


def test_it_answers_densely_and_says_why(backend: Any) -> None:
    chat = Chat(backend)
    text, stats = chat.answer(FIRST)
    assert text and stats.policy == "dense" and chat.is_dense()
    assert "cannot drop rejected tokens" in stats.policy_reason


def test_a_chat_goes_on(backend: Any) -> None:
    chat = Chat(backend)
    text, _ = chat.answer(FIRST)
    _, stats = chat.answer(FIRST, Message("assistant", text), SECOND)
    assert stats.reused > 0 and chat.is_dense()


def test_another_answer_to_the_same_question(backend: Any) -> None:
    """All of the prompt is read again."""
    chat = Chat(backend)
    text, _ = chat.answer(FIRST)
    again, stats = chat.answer(FIRST)
    assert again == text and stats.reused == 0 and chat.is_dense()
    messages = (FIRST, Message("assistant", text), SECOND)
    chat.answer(*messages)
    again, stats = chat.answer(*messages)
    assert stats.reused == 0 and chat.is_dense()
    assert chat.answer(*messages)[0] == again


def test_an_answer_that_was_stopped(backend: Any) -> None:
    """Also in the middle of a computation: what was under way leaves no trace in the next answer."""
    chat = Chat(backend)
    text, _ = chat.answer(FIRST)
    chat.ask(SECOND)
    chat.answerer.cancellation.cancel(1)
    chat.run()
    engine = backend.engine
    engine.prefill(engine.model.tokenize("A long text. " * 12))
    engine.cancel()
    with pytest.raises(Cancelled):
        engine.forward(5)
    engine.resume()
    assert engine.length == 0 and chat.answer(FIRST)[0] == text


def test_two_chats_at_once(model: Path) -> None:
    with closing(load(model, n_slots=2)) as backend:
        chat = Chat(backend)
        chat.ask(FIRST, number=1)
        chat.ask(SECOND, number=2)
        chat.run()
        assert chat.is_dense(1, 0) and chat.is_dense(2, 1)
