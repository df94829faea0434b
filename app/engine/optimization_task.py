"""`models optimize` in the engine process: writes a copy with faster weights, and measures whether it is worth it."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from specee.app import paths
from specee.app.bench.prompts import DEFAULT
from specee.app.engine.decode import decode
from specee.app.engine.loading import NativeBackend, open_backend
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Emit, Message, Progress
from specee.app.errors import USAGE, AppError
from specee.app.options import LoadOptions, PolicyChoice, Sampling
from specee.predictors.types import TIP

MAX_LOSS = 1.01  # of the perplexity; more is refused
N_CTX = 1024
ANSWER_TOKENS = 48
ROUNDS, ROUNDS_SECONDS = 7, 60.0
PREFILL_TOKENS, STEPS = 256, 12
ROWS = 4
# greedy, but without the loops that small models fall into: a model is certain of text in a loop
ANSWERS = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.1, seed=0)
NOTICEABLE = 1.05

_Speed = tuple[float, float, "float | None"]
"""Prefill in tokens a second, then seconds of a step of one row and of ROWS rows."""


@dataclass(frozen=True)
class Figures:
    """`prefill` in tokens a second, `t1` and `t4` in seconds for a step of one row and of four.

    `t4` is None for a model that takes one token after the other.
    """

    prefill: float
    t1: float
    t4: float | None
    perplexity: float


def run_optimize(load: LoadOptions, emit: Emit, output: str | None = None, force: bool = False) -> dict[str, Any]:
    """Writes the copy where `output` says (default: the data folder), and returns what changed and what was measured.

    Raises AppError when there is nothing to change, or when the copy loses more quality than MAX_LOSS (unless `force`);
    then no copy is left. The model itself is never touched.
    """
    from specee.models import gguf_header, requantize, resolve
    from specee.models.model_kind import check_answers

    found = resolve.resolve(load.model)
    header = gguf_header.read_model(found.path)
    check_answers(header)
    changed = requantize.changes(header)
    if not changed:
        raise AppError(
            "nothing to do", f"{found.name} has no weights that a faster type would hold without loss", USAGE
        )
    where = paths.find(load.data_dir)
    target = (
        paths.expand(output).absolute() if output else where.data / "models" / f"{found.name}-{_kind(changed)}.gguf"
    )
    if target.exists():
        raise AppError("already there", f"{target} exists; delete it, or give another --output", USAGE)
    part = target.with_name(f".{target.name}.part")
    try:
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            n_bytes = requantize.size_of_copy(header, changed)
            if n_bytes > shutil.disk_usage(target.parent).free:
                why = f"the copy takes {n_bytes / 1e9:.2f} GB in {target.parent}; give another --output"
                raise AppError("no room", why)
            requantize.write(header, changed, part, lambda share: emit(Progress("writing the copy", share)))
        before, after = compare(load, part, emit)
        loss = after.perplexity / before.perplexity
        if loss > MAX_LOSS and not force:
            raise AppError(
                "refused",
                f"the copy's perplexity is {loss - 1:+.2%} (limit {MAX_LOSS - 1:+.0%}); --force keeps it nevertheless",
                USAGE,
            )
        with _writing(target):
            part.replace(target)
    finally:
        with suppress(OSError):
            part.unlink()
    return {
        "model": found.name,
        "path": str(target),
        "bytes_before": header.file_bytes,
        "bytes": target.stat().st_size,
        "changes": requantize.describe(changed),
        "before": asdict(before),
        "after": asdict(after),
        "perplexity_ratio": loss,
        **verdict(before, after),
    }


def _kind(changed: list[Any]) -> str:
    """What most of the copy's changed bytes are in."""
    return str(max(changed, key=lambda change: change.n_bytes).target).lower()


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Around what writes the copy. Raises AppError."""
    try:
        yield
    except BrokenPipeError:  # of the pipe that progress goes through: the user's process is gone
        raise
    except OSError as error:
        why = f"{target}: {error.strerror or error}; make room, or give another --output"
        raise AppError("cannot write the copy", why) from error


def compare(load: LoadOptions, copy: Path, emit: Emit) -> tuple[Figures, Figures]:
    """Both models, loaded together and measured alternately: whatever the machine does meanwhile hits both."""
    options = [replace(load, n_ctx=N_CTX), replace(load, n_ctx=N_CTX, model=str(copy))]

    def show_progress(what: str, share: float | None) -> None:
        emit(Progress(what, share))

    backends = [open_backend(each, show_progress, with_calibration=False) for each in options]
    texts = _answers(backends[0], emit)
    perplexities = [_perplexity(backend, texts, emit) for backend in backends]
    speeds: tuple[list[_Speed], ...] = ([], [])
    began = time.perf_counter()
    for number in range(ROUNDS + 1):
        emit(Progress("measuring the speed of both", number / (ROUNDS + 1)))
        for backend, found in zip(backends, speeds, strict=True):
            found.append(_speed(backend))
        if time.perf_counter() - began > ROUNDS_SECONDS:
            break
    # the first round builds graphs
    before, after = (
        _figures(found[1:] or found, perplexity) for found, perplexity in zip(speeds, perplexities, strict=True)
    )
    return before, after


def _figures(rounds: list[_Speed], perplexity: float) -> Figures:
    together = [t4 for _, _, t4 in rounds if t4 is not None]
    return Figures(
        statistics.median(prefill for prefill, _, _ in rounds),
        statistics.median(t1 for _, t1, _ in rounds),
        statistics.median(together) if together else None,
        perplexity,
    )


def _answers(backend: NativeBackend, emit: Emit) -> list[tuple[list[int], list[int]]]:
    """The model's own answers to the bundled prompts: tokens of the prompt, tokens of the answer."""
    texts, dense = [], backend.policy(PolicyChoice("dense"))
    for index, prompt in enumerate(DEFAULT):
        emit(Progress("answering the bundled prompts", index / len(DEFAULT)))
        tokens = make_prompt(backend, (Message("user", prompt.text),)).tokens
        backend.engine.prefill(tokens)
        answer = [event.token for event in decode(backend, dense, tokens, ANSWERS, 0, ANSWER_TOKENS)[1]]
        texts.append((tokens, answer))
    return texts


def _perplexity(backend: NativeBackend, texts: list[tuple[list[int], list[int]]], emit: Emit) -> float:
    from specee.app.bench.dense_scores import score

    nll: list[float] = []
    for index, (prompt, answer) in enumerate(texts):
        emit(Progress("measuring the perplexity of both", index / len(texts)))
        nll += score(backend, prompt, answer, ANSWERS).nll
    return math.exp(statistics.fmean(nll))


def _speed(backend: NativeBackend) -> _Speed:
    engine = backend.engine
    tokens = [7 * i % engine.n_vocab for i in range(PREFILL_TOKENS)]
    engine.roll_back(0)
    began = time.perf_counter()
    engine.prefill(tokens)
    prefill = PREFILL_TOKENS / (time.perf_counter() - began)
    if engine.no_drafts is not None:  # several at once bring nothing, and its memory may not go back
        return prefill, _token(engine), None
    return prefill, _step(engine, 1), _step(engine, ROWS)


def _token(engine: Any) -> float:
    times = []
    for token in range(10, 10 + STEPS):
        began = time.perf_counter()
        engine.forward(token)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _step(engine: Any, n: int) -> float:
    times = []
    for _ in range(STEPS):
        rows: list[int] = []
        for token in range(10, 10 + n):
            rows.append(engine.append(token, rows[-1] if rows else TIP))
        began = time.perf_counter()
        engine.advance(rows, engine.n_layer, logits=True)
        times.append(time.perf_counter() - began)
        engine.roll_back(PREFILL_TOKENS)
    return statistics.median(times)


def verdict(before: Figures, after: Figures) -> dict[str, Any]:
    """Whether the copy is worth its size: it must be noticeably faster somewhere, and at decoding not slower."""
    gains = {
        "reading prompts": after.prefill / before.prefill,
        "one token at a time": before.t1 / after.t1,
    }
    if before.t4 is not None and after.t4 is not None:
        gains[f"{ROWS} tokens at once"] = before.t4 / after.t4
    measured = ", ".join(f"{what} {gain:.2f}x" for what, gain in gains.items())
    slower = gains["one token at a time"] < 1 / NOTICEABLE
    worth = not slower and max(gains.values()) >= NOTICEABLE
    if slower and max(gains.values()) >= NOTICEABLE:
        why = "mixed: answers come slower; worth it for long prompts with short answers only"
    else:
        why = "worth it" if worth else "not worth it"
    return {"worth_it": worth, "verdict": f"{why} ({measured})"}
