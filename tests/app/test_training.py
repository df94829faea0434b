"""A head is trained: what it computes, what may go wrong, and that it drafts."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_archs
import tiny_gguf
from head_drafts import drafts
from real_engine import missing_model

from specee.app.engine import training_task
from specee.app.engine.loading import open_backend
from specee.app.engine.protocol import Train
from specee.app.errors import AppError
from specee.app.options import LoadOptions, PolicyChoice
from specee.models import gguf_header, heads
from specee.models.draft_model import check
from specee.native.eagle_head import EagleHead as NativeHead
from specee.native.engine import Model
from specee.native.layer_states import LayerStatesEngine
from specee.predictors.training import head_file
from specee.predictors.training.conversations import Conversation, ConversationLog
from specee.predictors.training.head_file import HeadInfo
from specee.predictors.training.settings import Settings

NO_MODEL = missing_model()
needs_model = pytest.mark.skipif(NO_MODEL is not None, reason=str(NO_MODEL))


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
def test_without_pytorch_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_task.importlib.util, "find_spec", lambda name: None)
    task = Train(LoadOptions(data_dir=str(tmp_path)), None, None, 0, None)
    with pytest.raises(AppError, match=r"pip install torch; the model's calibration, .*, is there") as missing:
        training_task.run_training(task, lambda message: None)
    assert missing.value.exit_code == 2
    target = tiny_gguf.write(tmp_path / "target.gguf", "llama", seed=1)
    with pytest.raises(AppError, match="pip install torch; specee-chat calibrate needs none"):
        training_task.run_training(replace(task, load=replace(task.load, model=str(target))), lambda message: None)
    target = tiny_archs.write(tmp_path / "other.gguf", "gemma3n")
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
