"""What a head learns from: a model that talks to itself, and the chats of a user."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

from real_engine import missing_model

from specee.app import paths, training_data
from specee.app.chat.history.recent import recent_exchanges
from specee.app.chat.history.store import Store
from specee.app.cli import program
from specee.app.engine import training_task
from specee.app.engine.loading import open_backend
from specee.app.engine.protocol import ChatEvent
from specee.app.options import LoadOptions
from specee.native.layer_states import LayerStatesEngine
from specee.predictors.training.conversations import Conversation, ConversationLog
from specee.predictors.training.self_chat import SelfChat
from specee.predictors.training.settings import Settings, TrainedModel

NO_MODEL = missing_model()
needs_model = pytest.mark.skipif(NO_MODEL is not None, reason=str(NO_MODEL))
WIDTH = 4


def conversation(n: int, n_answer: int, seed: int) -> Conversation:
    rng = np.random.default_rng(seed)
    states, final = rng.standard_normal((n, 3 * WIDTH)), rng.standard_normal((n_answer, WIDTH))
    tokens = rng.integers(0, 99, n).tolist()
    return Conversation(
        tokens, n - n_answer, tokens[n - n_answer :], states.astype(np.float16), final.astype(np.float16)
    )


def same(one: Conversation, other: Conversation) -> bool:
    return (
        (one.tokens, one.begin, one.best) == (other.tokens, other.begin, other.best)
        and np.array_equal(one.states, other.states)
        and np.array_equal(one.final, other.final)
    )


@pytest.mark.parametrize("damage", ["none", "line", "states", "final"])
def test_an_interrupted_recording_loses_one_conversation_at_most(tmp_path: Path, damage: str) -> None:
    made = [conversation(5 + i, 2 + i, i) for i in range(4)]
    log = ConversationLog(tmp_path, WIDTH)
    for each in made:
        log.append(each)
    if damage == "line":
        with (tmp_path / "tokens.jsonl").open("a") as file:
            file.write('{"tokens": [1, 2')
    elif damage != "none":
        path = tmp_path / f"{damage}.f16"
        path.write_bytes(path.read_bytes()[:-3])
    again = ConversationLog(tmp_path, WIDTH)
    kept = 3 if damage in ("states", "final") else 4
    assert len(again) == kept and again.n_tokens == sum(len(each.tokens) for each in made[:kept])
    again.append(made[3])
    read = ConversationLog(tmp_path, WIDTH)
    expected = [*made[:kept], made[3]]
    assert len(read) == len(expected)
    assert all(same(read.read(i), each) for i, each in enumerate(expected))
    assert read.n_bytes == sum((tmp_path / name).stat().st_size for name in ("states.f16", "final.f16"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, TrainedModel]]:
    load = LoadOptions(n_ctx=512, data_dir=str(tmp_path_factory.mktemp("data")))
    backend = open_backend(load, lambda what, share: None, with_calibration=False)
    with training_task._trained_model(backend) as model:
        yield backend, model
    backend.close()


def conversations(model: TrainedModel, n: int) -> list[Conversation]:
    chat = SelfChat(model, Settings(question_tokens=40, answer_tokens=60, material_tokens=80), seed=1)
    return list(itertools.islice((each for each in chat.run() if each is not None), n))


@needs_model
def test_it_asks_and_answers(model: tuple[Any, TrainedModel]) -> None:
    backend, trained = model
    found = conversations(trained, 12)
    questions = [tuple(each.tokens[: each.begin]) for each in found]
    assert len(set(questions)) == len(questions)
    after = trained.after_question
    for each in found:
        assert each.tokens[each.begin - len(after) : each.begin] == after
        assert each.n_answer == len(each.best) == len(each.final) >= 8
        assert each.states.shape == (len(each.tokens), 3 * backend.engine.n_embd)
    assert any(each.best == each.tokens[each.begin :] for each in found), "half of the answers are greedy"
    assert any(each.best != each.tokens[each.begin :] for each in found), "the others are not"

    # what was recorded in a batch of eight chats is what reading the conversation alone gives
    longest = max(found, key=lambda each: len(each.tokens))
    states, final = alone(backend, trained, longest)
    assert np.abs(states - longest.states).max() < 0.02 * np.abs(states).max()
    assert np.abs(final - longest.final[-1]).max() < 0.02 * np.abs(final).max()


def alone(backend: Any, model: TrainedModel, conversation: Conversation) -> tuple[Any, Any]:
    """What the runtime makes of a conversation without others beside it: states, and the final one that its last token
    was chosen from."""
    start = len(model.before_question)
    engine = LayerStatesEngine(backend.model, model.weights.layers, n_ctx=512, n_threads=2)
    engine.prefill([*model.before_question, *conversation.tokens[:-2]])
    engine.forward(conversation.tokens[-2])
    final = engine.hidden(engine.tip)
    engine.forward(conversation.tokens[-1])
    states = engine.states(start, engine.length)
    engine.close()
    return states, final / np.sqrt(np.mean(final**2))


@needs_model
def test_pytorch_records_what_the_runtime_would(model: tuple[Any, TrainedModel]) -> None:
    """As on a GPU: more conversations at once, other rounding."""
    pytest.importorskip("torch", reason="training is an optional extra")
    from specee.predictors.training import torch_model

    backend, trained = model
    on_device = training_task._on_gpu(trained, Path(backend.info.path), "cpu", n_slots=12)
    assert len(on_device.slots) == 12
    found = conversations(on_device, 8)
    assert len(found) == 8 and len({tuple(each.tokens[: each.begin]) for each in found}) == 8
    for each in found:
        states, final = alone(backend, trained, each)
        assert torch_model.difference(states, each.states) < 0.05
        assert torch_model.difference(final[None], each.final[-1:]) < 0.1
    plain = next(each for each in found if each.best == each.tokens[each.begin :])
    assert plain.n_answer >= 8


@needs_model
def test_the_runtime_records_where_pytorch_computes_something_else(
    model: tuple[Any, TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="training is an optional extra")
    from specee.predictors.training import torch_model

    backend, trained = model
    path = Path(backend.info.path)
    with monkeypatch.context() as patch:
        patch.setattr(torch_model, "ARCHITECTURES", set())
        assert training_task._on_gpu(trained, path, "cpu", n_slots=1) is trained
    monkeypatch.setattr(training_task, "MAX_DIFFERENCE", 0.0)
    assert training_task._on_gpu(trained, path, "cpu", n_slots=1) is trained


@needs_model
def test_it_answers_the_questions_that_it_is_given(model: tuple[Any, TrainedModel]) -> None:
    _, trained = model
    asked = ["What is the capital of France?", "Name a colour.", "Count to three."] * 4
    found = [each for each in SelfChat(trained, Settings(answer_tokens=20), seed=1).answers(asked) if each is not None]
    assert 0 < len(found) <= len(asked)
    for each in found:
        assert each.best == each.tokens[each.begin :]
        assert any(trained.encode(text) == each.tokens[: each.begin - len(trained.after_question)] for text in asked)


@needs_model
def test_it_reads_the_users_chats_and_keeps_nothing_of_them(model: tuple[Any, TrainedModel], tmp_path: Path) -> None:
    _, trained = model
    store = Store(tmp_path / "history.sqlite")
    for question, answer, state in (("Hi", "Hello! " * 9, "complete"), ("Bye", "See you soon. " * 5, "interrupted")):
        chat = store.new_chat(question, None, {})
        recorder = store.add_answer(chat.id, store.add_question(chat.id, None, question, " (a file)"))
        recorder.add(ChatEvent(0, answer, 1, 30, "verified", 0.0))
        recorder.finish(state)
    store.close()
    assert recent_exchanges(tmp_path / "history.sqlite", 1000) == [("Hi (a file)", "Hello! " * 9)]
    assert recent_exchanges(tmp_path / "history.sqlite", 20) == []
    log = ConversationLog(tmp_path / "chats", trained.weights.n_embd)
    training_task._read_chats(trained, Settings(), log, tmp_path / "history.sqlite", lambda what, share: None)
    assert len(log) == 1
    read = log.read(0)
    assert read.tokens[: read.begin] == trained.encode("Hi (a file)") + trained.after_question
    assert read.tokens[read.begin :] == trained.encode("Hello! " * 9)[: read.n_answer] and len(read.best) > 8
    log.delete()
    assert list((tmp_path / "chats").iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        '{"tokens":5,"begin":1,"best":[1]}',
        '{"tokens":[1,2,3],"begin":0,"best":[1,2,3]}',
        '{"tokens":[1,2,3],"begin":1,"best":[1]}',
        '{"tokens":[1,2,99999999],"begin":1,"best":[2,3]}',
        '{"tokens":[1,2,true],"begin":1,"best":[2,3]}',
        '{"tokens":[1,2,3],"begin":"1","best":[2,3]}',
        "[" * 100_000,
        "7",
    ],
)
def test_what_is_no_conversation_ends_a_recording(tmp_path: Path, line: str) -> None:
    log = ConversationLog(tmp_path, WIDTH)
    log.append(conversation(5, 2, 1))
    with (tmp_path / "tokens.jsonl").open("a") as file:
        file.write(line + "\n")
    assert len(ConversationLog(tmp_path, WIDTH)) == 1


def test_a_recording_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("do not touch")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "states.f16").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="no regular file"):
        ConversationLog(tmp_path / "log", WIDTH)
    assert (tmp_path / "precious").read_text() == "do not touch"


def test_deleted_chats_are_forgotten_by_training_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was killed leaves them."""
    store = Store(tmp_path / "history.sqlite")
    chat = store.new_chat("A secret", None, {})
    store.close()
    left = training_data.chats(training_data.folder(paths.find(str(tmp_path)).cache, "a" * 64))
    ConversationLog(left, WIDTH).append(conversation(5, 2, 1))
    arguments = ["specee-chat", "history", "rm", str(chat.id), "--yes", "--data-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with training_data.lock(left.parent):
        training_data.forget_chats(paths.find(str(tmp_path)).cache)
        assert left.exists(), "a training at work needs them, and removes them itself"
    assert program.run() == 0
    assert not left.exists()
