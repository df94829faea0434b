"""A model talks to itself, and a head learns from it: on the embedded model, with few tokens."""

from __future__ import annotations

import errno
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_eagle
import tiny_gguf
from real_engine import missing_model

from specee.app import paths, training_data
from specee.app.chat.history.recent import recent_exchanges
from specee.app.chat.history.store import Store
from specee.app.cli import model_details, program
from specee.app.engine import training_task
from specee.app.engine.draft_file import OWN_HEAD
from specee.app.engine.loading import open_backend
from specee.app.engine.protocol import ChatEvent, Message, Train
from specee.app.errors import AppError
from specee.app.options import PLAIN_GREEDY, LoadOptions, PolicyChoice
from specee.models import embedded, file_hash, gguf_header, heads
from specee.models.draft_model import check
from specee.native.eagle_head import EagleHead as NativeHead
from specee.native.engine import Model
from specee.native.layer_states import LayerStatesEngine
from specee.predictors.training import head_file
from specee.predictors.training.conversations import Conversation, ConversationLog
from specee.predictors.training.head_file import HeadInfo
from specee.predictors.training.self_chat import SelfChat
from specee.predictors.training.settings import Settings, TrainedModel

NO_MODEL = missing_model()
needs_model = pytest.mark.skipif(NO_MODEL is not None, reason=str(NO_MODEL))
WIDTH = 4
NO_STATES = (np.zeros((0, 0), np.float16), np.zeros((0, 0), np.float16))


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


def test_pytorch_knows_which_models_it_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training is an optional extra")
    from specee.predictors.training import torch_model

    for arch in ("gemma2", "phi3"):
        path = tiny_gguf.write(tmp_path / f"{arch}.gguf", arch, seed=1)
        with pytest.raises(torch_model.UnknownArchitectureError):
            torch_model.load([path], (1, 3, 5), 64, 1, "cpu")


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_pytorch_computes_what_the_runtime_does(tmp_path: Path, arch: str) -> None:
    torch = pytest.importorskip("torch", reason="training is an optional extra")
    from specee.predictors.training import torch_model

    path = tiny_gguf.write(tmp_path / "model.gguf", arch, seed=1)
    model = Model(path)
    engine = LayerStatesEngine(model, (1, 3, 5), n_ctx=128, n_threads=2)
    text = [int(t) for t in np.random.default_rng(2).integers(3, engine.n_vocab, 40)]
    engine.prefill(text)
    made = torch_model.TorchModel([path], engine.layers, "cpu", torch.float32)
    made.make_slots(3, 128)
    one, other, _ = made.slots
    made.read([(one, text[:7])])
    made.read([(other, text[:12]), (one, text[7:30])])
    for place in range(10):
        made.read([(one, [text[30 + place]]), (other, [text[12 + place]])])
    assert one.tokens == text and other.tokens == text[:22]
    wanted = engine.states(0, len(text))
    assert torch_model.difference(wanted, one.states(0, len(text))) < 0.02
    assert torch_model.difference(wanted[:22], other.states(0, 22)) < 0.02
    one.roll_back(20)
    made.read([(one, text[20:])])
    assert torch_model.difference(wanted, one.states(0, len(text))) < 0.02
    engine.close()
    model.close()


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


@needs_model
def test_a_models_own_head_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "SHIPPED", {})
    target = embedded.path()
    assert target is not None
    load = LoadOptions(data_dir=str(tmp_path), n_ctx=256)
    sha256 = file_hash.sha256(target, tmp_path / "cache")
    path = heads.own_path(tmp_path / "heads", sha256)
    path.parent.mkdir()
    tiny_eagle.write(path, target, (2, 15, 27), n_known=512)

    def drafter(options: LoadOptions) -> str | None:
        backend = open_backend(options, lambda what, share: None)
        backend.close()
        return backend.info.drafter

    assert drafter(load) == OWN_HEAD
    assert drafter(replace(load, drafter="none")) is None
    assert drafter(replace(load, n_slots=2)) is None, "it follows one chat"
    facts = model_details.facts(None, paths.find(str(tmp_path)), None)
    assert facts["head"] == str(path) and facts["head_acceptance"] == []
    assert f"{path}" in model_details.text(facts)
    path.write_bytes(b"GGUF nonsense")
    assert drafter(load) is None, "nobody asked for it"
    assert "unusable" in model_details.text(model_details.facts(None, paths.find(str(tmp_path)), None))


def test_of_the_users_head_and_a_shipped_one_the_better_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tiny_gguf.write(tmp_path / "target.gguf", "llama", seed=1)
    header = gguf_header.read_model(target)

    def write(path: Path, first: float, token: int = 0) -> Path:
        path.parent.mkdir(exist_ok=True)
        info = HeadInfo("a head", "a", (1, 3, 5), 64, 1, 1, 64, 256, 1e-5, 1e4, (first, 0.25), 7, "a test")
        weights = {"fc": np.zeros((64, 192), np.float32), "output": np.zeros((32, 64), np.float32)}
        head_file.write(path, info, weights, token + np.arange(32, dtype=np.int32), "q8_0", target)
        return path

    def find(sha256: str) -> Path | None:
        return heads.find(folder, sha256, header)

    shipped = write(tmp_path / "data" / "shipped.gguf", 0.45)
    monkeypatch.setattr(heads, "SHIPPED", {"a": "shipped.gguf"})
    monkeypatch.setenv("SPECEE_EMBEDDED_DIR", str(tmp_path / "data"))
    folder = tmp_path / "heads"
    own = heads.own_path(folder, "a")
    assert find("a") == shipped and find("b") is None
    write(own, 0.3)
    assert find("a") == shipped
    write(own, 0.5, token=10_000)
    assert find("a") == shipped, "for tokens that there are not"
    told = heads.unusable_own(folder, "a", header)
    assert told is not None and "tokens that there are not; specee-chat train makes it again" in told
    assert not heads.is_better(own, (0.4,), header), "training would leave it there"
    write(own, 0.5)
    assert find("a") == own and heads.unusable_own(folder, "a", header) is None
    assert [heads.is_better(own, (rate,), header) for rate in (0.45, 0.55)] == [True, False]
    assert not heads.is_better(shipped, (0.5,), header)
    monkeypatch.setattr(heads, "SHIPPED", {"b": "shipped.gguf"})
    own.rename(heads.own_path(folder, "b"))
    assert find("b") == shipped, "the user's is another model's"
    damaged = heads.own_path(folder, "b")
    damaged.write_bytes(b"GGUF nonsense")
    assert find("b") == shipped
    digest = "b" * 64
    damaged.rename(heads.own_path(folder, digest))
    assert "specee-chat train makes it again" in (heads.unusable_own(folder, digest, header) or "")


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


@pytest.mark.parametrize("damage", ["none", "nan", "fifo", "garbage", "nan in the data"])
def test_damage_does_not_get_into_a_head(tmp_path: Path, damage: str) -> None:
    torch = pytest.importorskip("torch", reason="training is an optional extra")
    from specee.predictors.training.train import HeadTraining

    model = Model(tiny_gguf.write(tmp_path / "target.gguf", "llama", seed=1))
    engine = LayerStatesEngine(model, (1, 3, 5), n_ctx=64, n_threads=2)
    rng = np.random.default_rng(1)
    log = ConversationLog(tmp_path / "log", engine.n_embd)
    for i in range(4):
        tokens = rng.integers(3, engine.n_vocab, 20).tolist()
        states, final = rng.standard_normal((20, 3 * engine.n_embd)), rng.standard_normal((12, engine.n_embd))
        if damage == "nan in the data" and i == 3:
            states[5] = np.nan
        log.append(Conversation(tokens, 8, tokens[8:], states.astype(np.float16), final.astype(np.float16)))
    settings = Settings(vocabulary=32, batch_tokens=20, passes=3.0)
    file = tmp_path / "training.pt"
    (tmp_path / "training.123").write_bytes(b"a part")
    if damage == "nan":
        made = HeadTraining(engine, (log,), settings)
        made.run(tmp_path, log, lambda what, share: None)
        state = torch.load(file)
        state["head"]["fc.weight"][0, 0] = float("nan")
        torch.save(state, file)
    elif damage == "fifo":
        os.mkfifo(file)
    elif damage == "garbage":
        file.write_bytes(b"PK" + bytes(range(256)))
    training = HeadTraining(engine, (log,), settings)
    curve = training.run(tmp_path, log, lambda what, share: None)
    assert curve and all(np.isfinite(w).all() for w in training.weights().values())
    assert not (tmp_path / "training.123").exists()
    engine.close()
    model.close()


@needs_model
def test_the_shipped_heads_are_those_of_their_models() -> None:
    for sha256, name in heads.SHIPPED.items():
        path = embedded.data_file(name)
        assert path is not None, f"{name} is not installed"
        header = gguf_header.read_model(path)
        assert heads.trained_for(header) == sha256
        assert heads.is_worth_using(header) and path.stat().st_size < 24_000_000


@needs_model
def test_the_embedded_models_head_drafts(tmp_path: Path) -> None:
    """In the runtime its first drafts are right as often as training said, on other prompts."""
    target = embedded.path()
    assert target is not None
    path = heads.find(tmp_path, file_hash.sha256(target, tmp_path / "cache"), gguf_header.read_model(target))
    assert path is not None
    backend = open_backend(LoadOptions(n_ctx=512, data_dir=str(tmp_path)), lambda what, share: None)
    assert backend.info.drafter == OWN_HEAD
    right = tried = 0
    for question in ("Why do rivers bend?", "Write a function that adds two numbers.", "List three kinds of bread."):
        text = backend.format((Message("user", question),), None)
        tokens = backend.tokenize(text, bos=False)
        backend.engine.prefill(tokens)
        answer: list[int] = []
        with closing(backend.sampler(PLAIN_GREEDY)) as sampler:
            while len(answer) < 80 and not backend.engine.is_stop(token := backend.engine.greedy(0, sampler)):
                answer.append(token)
                backend.engine.forward(token)
        found = drafts(path, backend, Conversation([*tokens, *answer], len(tokens), answer, *NO_STATES), before=[])
        right, tried = right + found[0], tried + found[1]
    backend.close()
    assert tried > 100 and right / tried > 0.3, (right, tried)


@needs_model
def test_without_pytorch_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_task.importlib.util, "find_spec", lambda name: None)
    task = Train(LoadOptions(data_dir=str(tmp_path)), None, None, 0, None)
    with pytest.raises(AppError, match=r"pip install torch; the model's calibration, .*, is there") as missing:
        training_task.run_training(task, lambda message: None)
    assert missing.value.exit_code == 2
    target = tiny_gguf.write(tmp_path / "target.gguf", "llama", seed=1)
    with pytest.raises(AppError, match="pip install torch; specee-chat calibrate needs none"):
        training_task.run_training(replace(task, load=replace(task.load, model=str(target))), lambda message: None)
    target = tiny_gguf.write(tmp_path / "other.gguf", tiny_gguf.DENSE_ONLY)
    with pytest.raises(AppError, match="cannot train"):  # nobody should install it in vain
        training_task.run_training(replace(task, load=replace(task.load, model=str(target))), lambda message: None)


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_the_runtime_computes_what_training_does(tmp_path: Path, arch: str) -> None:
    """A head with random weights, written and read: the same draft at each step, after each place of a text."""
    torch = pytest.importorskip("torch", reason="training is an optional extra")
    from specee.predictors.training.head import HEAD_DIM, NORM_EPS, ROPE_BASE, EagleHead, HeadShape

    target = tiny_gguf.write(tmp_path / "target.gguf", arch, seed=1)
    model = Model(target)
    engine = LayerStatesEngine(model, (1, 3, 5), n_ctx=256, n_threads=2)
    shape = HeadShape(engine.n_embd, 40)
    torch.manual_seed(3)
    trained = EagleHead(shape)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 2.0)
    weights = {name.removesuffix(".weight"): w.detach().numpy() for name, w in trained.named_parameters()}
    known = np.sort(np.random.default_rng(1).choice(engine.n_vocab, 40, replace=False)).astype(np.int32)
    info = HeadInfo(
        *("a head", "0" * 64, engine.layers, shape.width, shape.n_head, shape.n_head_kv),
        *(shape.feed_forward, 256, NORM_EPS, ROPE_BASE, (0.5, 0.25), 7, "a test"),
    )
    assert shape.width // shape.n_head == HEAD_DIM
    head_file.write(tmp_path / "head.gguf", info, weights, known, "q8_0", target)
    header = gguf_header.read_model(tmp_path / "head.gguf")
    check(gguf_header.read_model(target), header)
    assert heads.acceptance(header) == [0.5, 0.25] and heads.is_worth_using(header)

    text = [int(t) for t in np.random.default_rng(2).integers(3, engine.n_vocab, 24)]
    engine.prefill(text)
    rounded = head_file.rounded(weights, "q8_0")
    trained.load_state_dict({f"{name}.weight": torch.from_numpy(w) for name, w in rounded.items()})
    states = torch.from_numpy(engine.states(0, len(text)))[None]
    vectors = np.zeros((len(text) + 3, engine.n_embd), np.float32)
    vectors[: len(text)] = engine.embedding_rows(np.array(text, np.int32))
    embedded = [torch.from_numpy(vectors[i : i + len(text)])[None] for i in (1, 2, 3)]
    with torch.no_grad():
        logits = [trained.output(seen)[0].numpy() for seen in trained.unroll(states, embedded)]

    head_model = Model(tmp_path / "head.gguf")
    head = NativeHead(head_model, engine)
    for place in range(len(text) - 4):
        engine.prefill(text[: place + 1])  # the rest is drafted
        assert head.settle(place + 2)
        for step in range(3):
            head.read(text[len(head.tokens) : place + 2 + step])
            expected = logits[step][place]
            token, prob = head.best()
            at = int(np.flatnonzero(known == token)[0])
            # the runtime rounds what it multiplies to 8 bits
            assert expected[at] >= expected.max() - 0.05 * (expected.max() - expected.min()), (place, step)
            assert prob == pytest.approx(1 / np.exp(expected - expected[at]).sum(), rel=0.25)
    head.close()
    head_model.close()
    engine.close()
    model.close()


def training(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """`run` in place of what takes long."""
    monkeypatch.setattr(training_task.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(training_task, "_run", run)


@needs_model
def test_two_trainings_of_a_model_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Train(LoadOptions(data_dir=str(tmp_path)), None, None, 0, None)

    def again(*_: Any) -> dict[str, Any]:
        training_task.run_training(task, lambda message: None)
        return {}

    training(monkeypatch, again)
    with pytest.raises(AppError, match="by another specee-chat") as refused:
        training_task.run_training(task, lambda message: None)
    assert refused.value.exit_code == 1


@needs_model
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device", "/x/states.f16")

    training(monkeypatch, full)
    task = Train(LoadOptions(data_dir=str(tmp_path)), None, None, 0, None)
    with pytest.raises(AppError, match="No space left on device; what was recorded is kept"):
        training_task.run_training(task, lambda message: None)


def test_rounding_the_weights_leaves_the_trained_ones(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training is an optional extra")
    from specee.predictors.training.train import HeadTraining

    model = Model(tiny_gguf.write(tmp_path / "target.gguf", "llama", seed=1))
    engine = LayerStatesEngine(model, (1, 3, 5), n_ctx=64, n_threads=2)
    log = ConversationLog(tmp_path, engine.n_embd)
    rng = np.random.default_rng(1)
    tokens = rng.integers(3, engine.n_vocab, 20).tolist()
    states, final = rng.standard_normal((20, 3 * engine.n_embd)), rng.standard_normal((12, engine.n_embd))
    log.append(Conversation(tokens, 8, tokens[8:], states.astype(np.float16), final.astype(np.float16)))
    training = HeadTraining(engine, (log,), Settings(vocabulary=32))
    weights = training.weights()
    before = {name: w.copy() for name, w in weights.items()}
    training.with_weights(head_file.rounded(weights, "q4_0"))
    assert all(np.array_equal(before[name], w) for name, w in weights.items())
    assert not np.array_equal(training.weights()["fc"], weights["fc"])
    engine.close()
    model.close()


@needs_model
def test_a_head_is_trained_found_and_drafts_what_training_saw(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training is an optional extra")
    task = Train(LoadOptions(data_dir=str(tmp_path)), 2_000, 0.5, 0, None)
    result = training_task.run_training(task, lambda message: None)
    path = Path(result["path"])
    load = LoadOptions(data_dir=str(tmp_path), n_ctx=512)
    backend = open_backend(load, lambda what, share: None)
    assert path == heads.find(tmp_path / "heads", backend.sha256, gguf_header.read_model(Path(backend.info.path)))
    assert not result["is_worth_using"] and backend.info.drafter is None, "it has learned too little"
    backend.close()
    backend = open_backend(replace(load, drafter=str(path)), lambda what, share: None)
    assert backend.policy(PolicyChoice("chain")) is not None

    work = tmp_path / "cache" / "training" / backend.sha256[:16]
    held_out = ConversationLog(work / "validation", backend.engine.n_embd)
    right, tried = drafts(path, backend, held_out.read(0), held_out.read(1))
    backend.close()
    assert tried > 50
    print(json.dumps(result), right / tried)


def drafts(
    path: Path, backend: Any, *conversations: Conversation, before: Sequence[int] | None = None
) -> tuple[int, int]:
    """How many first drafts of the head in the runtime are right, of how many. `before`: what stands before each
    conversation, else what does in a chat."""
    if before is None:
        before, _ = training_task.chat_around(backend)
    right = tried = 0
    for each in conversations:
        model = Model(path)
        engine = backend.engine
        head = NativeHead(model, engine)
        text = [*before, *each.tokens]
        begin = len(before) + each.begin + 1
        engine.prefill(text[:begin])
        for at in range(begin, len(text)):
            assert head.settle(at)
            head.read(text[len(head.tokens) : at])
            right += head.best()[0] == text[at]
            tried += 1
            engine.forward(text[at])
        head.close()
        model.close()
    return right, tried
