"""`specee-chat train` in the engine process: the model and the files around predictors.training."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from specee.app import paths, training_data
from specee.app.engine.loading import NativeBackend, open_backend
from specee.app.engine.protocol import Emit, Message, Progress, Train
from specee.app.errors import FAILURE, USAGE, AppError
from specee.app.options import NO_DRAFTER
from specee.models import local_file

if TYPE_CHECKING:
    from specee.predictors.training.conversations import ConversationLog
    from specee.predictors.training.settings import Settings, TrainedModel, Weights
    from specee.predictors.training.train import HeadTraining

N_SLOTS, N_GPU_SLOTS, N_CTX = 8, 256, 1280
MAX_DIFFERENCE = 0.1  # relative, of states in PyTorch: the runtime's own rounding makes 0.02
GPU_PASSES, GPU_BATCH = 8.0, 2048
TOP_K = 64  # tokens that are drawn from
MARK = "specee"  # stands for a question in the template
FREE_SHARE = 0.8  # of the disk that is free
CHATS_SHARE = 0.25  # of the tokens that are talked: the user's own chats, at most
CHARACTERS = 4  # of a token
Q4_MAY_COST = 0.04
"""Of the tokens a step: its weights are half as large, and reading them is what a draft costs."""


def run_training(task: Train, emit: Emit) -> dict[str, Any]:
    """Makes a head and writes it where it is found again, or to `task.output`. Returns what was measured.

    Started again after an interruption, it continues.
    """

    def progress(what: str, share: float | None) -> None:
        emit(Progress(what, share))

    backend = open_backend(replace(task.load, drafter=NO_DRAFTER), progress, with_calibration=False)
    if backend.info.dense_only:
        raise AppError("cannot train", f"a head reads states of layers: {backend.info.dense_only}", FAILURE)
    if importlib.util.find_spec("torch") is None:
        why = f"training needs it: pip install torch; {_without_it(task, backend.sha256)}"
        raise AppError("PyTorch is missing", why, USAGE)
    work = training_data.folder(paths.find(task.load.data_dir).cache, backend.sha256)
    settings = _settings(task, work)
    try:
        local_file.make_folder(work)  # the user's chats are in it for a while
        with training_data.lock(work):
            return _run(task, backend, settings, work, progress)
    except Timeout:
        why = f"{backend.info.name} is being trained by another specee-chat; wait for its end"
        raise AppError("already at work", why, FAILURE) from None
    except BrokenPipeError:  # of the pipe that progress goes through: the user's process is gone
        raise
    except OSError as error:
        why = f"{error.filename or work}: {error.strerror or error}"
        if error.errno == errno.ENOSPC:
            why += "; what was recorded is kept: make room and go on"
        raise AppError("cannot record", why, FAILURE) from error


def _without_it(task: Train, sha256: str) -> str:
    """What there is for a model without PyTorch."""
    from specee.models import calibrations, resolve

    is_embedded = resolve.resolve(task.load.model).embedded
    if calibrations.find(paths.find(task.load.data_dir).calibrations, sha256, embedded=is_embedded) is None:
        return "specee-chat calibrate needs none, and lets tokens skip layers (policies exact and specee)"
    return "the model's calibration, which is made without it, is there (policies exact and specee)"


def _run(task: Train, backend: NativeBackend, settings: Settings, work: Path, progress: Any) -> dict[str, Any]:
    from specee.predictors.training.conversations import ConversationLog
    from specee.predictors.training.train import HeadTraining

    device = _device()
    if device != "cpu":
        settings = replace(settings, passes=GPU_PASSES, batch_tokens=GPU_BATCH)
    width = backend.model.n_embd
    data, held_out = (ConversationLog(work / name, width) for name in ("conversations", "validation"))
    chats = ConversationLog(training_data.chats(work), width)
    chats.delete()  # of an earlier run that was interrupted: some of them may be deleted by now
    try:
        history = paths.find(task.load.data_dir).history if task.load.chats else None
        weights, rate = _record(backend, settings, device, work, (held_out, data, chats), history, progress)
        if len(data) + len(chats) == 0 or len(held_out) == 0:
            raise AppError(
                "nothing to learn from", "no conversation ended within the time; give more --minutes", FAILURE
            )
        training = HeadTraining(weights, (data, chats), settings, device)
        began = time.monotonic()
        curve = training.run(work, held_out, progress)
        seconds = time.monotonic() - began
        progress("measuring the head", 1.0)
        return {
            **_write(task, backend, training, (data, chats), held_out),
            "conversations": len(data),
            "chats": len(chats),
            "tokens": data.n_tokens + chats.n_tokens,
            "answer_tokens": data.n_answer_tokens + chats.n_answer_tokens,
            "tokens_per_second": rate,
            "device": device,
            "training_seconds": seconds,
            "learning_curve": [{"tokens": n, "acceptance": list(found.rates)} for n, found in curve],
        }
    finally:
        chats.delete()


def _record(
    backend: NativeBackend,
    settings: Settings,
    device: str,
    work: Path,
    logs: tuple[ConversationLog, ConversationLog, ConversationLog],
    history: Path | None,
    progress: Any,
) -> tuple[Weights, float]:
    """Fills the logs: answers to measure with, conversations, the user's chats. Also the conversations' tokens/s."""
    held_out, data, chats = logs
    with _trained_model(backend, device) as model:
        _answer_prompts(model, settings, held_out, progress)
        rate = _talk(model, settings, data, progress)
        if history is not None:
            _read_chats(model, settings, chats, history, progress)
        return model.weights, rate


def _settings(task: Train, work: Path) -> Settings:
    from specee.predictors.training.settings import Settings

    settings = Settings(seed=task.seed)
    free = shutil.disk_usage(next(each for each in (work, *work.parents) if each.exists())).free
    if task.minutes is not None:
        settings = replace(settings, seconds=60.0 * task.minutes, train_seconds=60.0 * task.minutes)
    return replace(
        settings,
        tokens=task.tokens or settings.tokens,
        disk_bytes=min(settings.disk_bytes, int(FREE_SHARE * free)),
    )


def _device() -> str:
    """Where PyTorch computes."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _trained_model(backend: NativeBackend, device: str = "cpu") -> Iterator[TrainedModel]:
    """The model as training takes it: in the runtime, or in PyTorch on a GPU, which holds many more conversations."""
    from specee.native.layer_states import LayerStatesEngine
    from specee.native.sampler import Sampler
    from specee.predictors.training.engine_slots import EngineSlots
    from specee.predictors.training.settings import TrainedModel, read_layers

    engine: Any = LayerStatesEngine(
        backend.model,
        read_layers(backend.model.n_layer),
        n_ctx=N_CTX,
        n_slots=N_SLOTS,
        n_threads=backend.engine.n_threads,
    )

    def sampler(temperature: float, top_p: float) -> Any:
        return Sampler(backend.model, temperature=temperature, top_k=TOP_K if temperature else 0, top_p=top_p)

    before, after = chat_around(backend)
    own = EngineSlots(engine.slots, backend.advance_together, sampler)
    model = TrainedModel(
        own.slots,
        own.read,
        engine,
        before,
        after,
        lambda text: backend.model.tokenize(text, special=False, bos=False) if text else [],
        backend.model.is_stop,
    )
    try:
        yield model if device == "cpu" else _on_gpu(model, Path(backend.info.path), device)
    finally:
        own.close()


def _on_gpu(model: TrainedModel, path: Path, device: str, n_slots: int = N_GPU_SLOTS) -> TrainedModel:
    """The same in PyTorch, where it knows the architecture, has room, and computes the same states as the runtime."""
    import torch

    from specee.models import gguf_header
    from specee.predictors.calibration.settings import bundled_prompts
    from specee.predictors.training import torch_model

    try:
        files = gguf_header.read_model(path).files
        made = torch_model.load(files, model.weights.layers, N_CTX, n_slots, device)
    except (torch_model.UnknownArchitectureError, torch.cuda.OutOfMemoryError):
        return model
    probe = [*model.before_question, *model.encode(bundled_prompts()[0]), *model.after_question]
    runtime, gpu = model.slots[0], made.slots[0]
    runtime.roll_back(0)
    model.read([(runtime, probe)])
    made.read([(gpu, probe)])
    same = torch_model.difference(runtime.states(1, len(probe)), gpu.states(1, len(probe))) < MAX_DIFFERENCE
    runtime.roll_back(0)
    gpu.roll_back(0)
    return replace(model, slots=made.slots, read=made.read) if same else model


def chat_around(backend: NativeBackend) -> tuple[list[int], list[int]]:
    """What stands before a user's question in a chat, and after it up to the answer, as tokens."""
    before, mark, after = backend.format((Message("user", MARK),), None).partition(MARK)
    if not mark or not after or MARK in after:
        raise AppError("cannot train", "the model's chat template changes the question", FAILURE)
    has_bos = bool(backend.bos_text) and before.startswith(backend.bos_text)
    return backend.tokenize(before, bos=not has_bos), backend.tokenize(after, bos=False)


def _answer_prompts(model: TrainedModel, settings: Settings, held_out: ConversationLog, progress: Any) -> None:
    """Answers to measure with; those of an earlier run are kept."""
    from specee.predictors.calibration.settings import bundled_prompts
    from specee.predictors.training.self_chat import SelfChat

    prompts = bundled_prompts()[len(held_out) : settings.n_validation]
    for conversation in SelfChat(model, settings, settings.seed).answers(prompts):
        if conversation is not None:
            held_out.append(conversation)
            progress("answering prompts to measure with", len(held_out) / settings.n_validation)


def _talk(model: TrainedModel, settings: Settings, data: ConversationLog, progress: Any) -> float:
    """Records conversations until there are enough, or the time is over: tokens a second."""
    from specee.predictors.training.self_chat import SelfChat

    began, begun_with = time.monotonic(), data.n_tokens
    # another seed for each run: one that goes on must not say what the one before said
    for conversation in SelfChat(model, settings, settings.seed + begun_with, data.questions()).run():
        elapsed = time.monotonic() - began
        share = max(data.n_tokens / settings.tokens, elapsed / settings.seconds, data.n_bytes / settings.disk_bytes)
        if share >= 1.0:
            break
        if conversation is not None:
            data.append(conversation)
            progress("talking to itself", share)
    return (data.n_tokens - begun_with) / (time.monotonic() - began)


def _read_chats(model: TrainedModel, settings: Settings, chats: ConversationLog, history: Path, progress: Any) -> None:
    """The user's own chats, too: what the model makes of them."""
    from specee.app.chat.history.recent import recent_exchanges
    from specee.predictors.training.self_chat import SelfChat

    most = int(CHATS_SHARE * settings.tokens)
    exchanges = recent_exchanges(history, CHARACTERS * most)
    for conversation in SelfChat(model, settings, settings.seed).read(exchanges):
        if conversation is not None:
            chats.append(conversation)
            progress("reading your chats", min(1.0, len(chats) / len(exchanges)))
        if chats.n_tokens >= most:
            break


def _write(
    task: Train,
    backend: NativeBackend,
    training: HeadTraining,
    logs: Sequence[ConversationLog],
    held_out: ConversationLog,
) -> dict[str, Any]:
    """Writes the head in the smallest type that costs no acceptance; what it is worth."""
    from specee.models import gguf_header, heads
    from specee.predictors.training.head import HEAD_DIM, NORM_EPS, ROPE_BASE
    from specee.predictors.training.head_file import QUANTIZED, HeadInfo, rounded, write

    weights = training.weights()
    found = {"f32": training.acceptance(held_out)}
    for kind in QUANTIZED:
        found[kind] = training.with_weights(rounded(weights, kind)).acceptance(held_out)
    small_enough = found["q4_0"].tokens_per_step >= (1.0 - Q4_MAY_COST) * found["q8_0"].tokens_per_step
    kind = "q4_0" if small_enough else "q8_0"
    folder = paths.find(task.load.data_dir).heads
    target = paths.expand(task.output) if task.output else heads.own_path(folder, backend.sha256)
    shape, n_tokens = training.head.shape, sum(log.n_tokens for log in logs)
    info = HeadInfo(
        name=f"{backend.info.name} draft head",
        target_sha256=backend.sha256,
        layers=training.layers,
        width=shape.width,
        n_head=shape.width // HEAD_DIM,
        n_head_kv=shape.n_head_kv,
        feed_forward=shape.feed_forward,
        n_ctx=backend.model.n_ctx_train,
        norm_eps=NORM_EPS,
        rope_base=ROPE_BASE,
        acceptance=found[kind].rates,
        training_tokens=n_tokens,
        made_by=f"specee-chat train, {sum(map(len, logs))} conversations, seed {task.seed}",
    )
    header = gguf_header.read_model(Path(backend.info.path))
    is_written = task.output is not None or not heads.is_better(target, found[kind].rates, header)
    if is_written:
        write(target, info, weights, training.known, kind, Path(backend.info.path))
    return {
        "path": str(target),
        "is_written": is_written,
        "is_worth_using": heads.is_worth_using(gguf_header.read_model(target)),
        "bytes": target.stat().st_size,
        "type": kind,
        "acceptance": list(found[kind].rates),
        "tokens_per_step": found[kind].tokens_per_step,
        "by_type": {name: [*each.rates, each.tokens_per_step] for name, each in found.items()},
        "vocabulary_share": training.coverage,
        "parameters": sum(p.numel() for p in training.head.parameters()),
    }
