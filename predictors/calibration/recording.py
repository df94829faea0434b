"""Recording: the model answers our prompts, then the states of its rows are read off.

The work folder holds one file per answer, written in one step, so an interrupted recording goes on where it stopped.
"""

from __future__ import annotations

import errno
import os
import time
import zipfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.settings import (
    CalibratedModel,
    CalibrationEngine,
    ProgressCallback,
    Settings,
    bundled_prompts,
    candidate_exit_layers,
)
from specee.predictors.decoding import driver
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.state import begin_decoding
from specee.predictors.errors import CalibrationError
from specee.predictors.repetition import NGRAM, loop_start
from specee.predictors.types import TIP, Floats, Sampler

MODES = ((0.0, 1.0), (0.7, 1.1), (0.0, 1.1))  # temperature, repetition penalty; one for each prompt in turn
BATCH = 64
MIN_TIMED_TOKENS = 2000  # tokens below which the time limit does not count


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer. Row i holds token i of `row_tokens`: the prompt's last token, then the answer's but its last.

    `states` [n_exit_layers + 1, n_rows, n_embd] are float16 and divided by their rms; the last layer's come last,
    centred before where the model's final norm does that.
    `best` [n_rows]: the dense model's most probable next token.
    """

    prompt_index: int
    prompt: NDArray[np.int32]
    row_tokens: NDArray[np.int32]
    states: NDArray[np.float16]
    best: NDArray[np.int32]

    @property
    def is_greedy(self) -> bool:
        """Whether the answer follows the dense model's most probable tokens (nearly: batches round otherwise)."""
        return bool(np.mean(self.row_tokens[1:] == self.best[:-1]) > 0.97) if len(self.best) > 1 else True


def normalise(states: Floats) -> Floats:
    """Divide each state by its root mean square: float32 [..., n_embd]."""
    square = np.mean(np.square(states, dtype=np.float64), axis=-1, keepdims=True)
    result: Floats = (states / np.sqrt(square + 1e-12)).astype(np.float32)
    return result


def without_loop(tokens: list[int]) -> list[int]:
    """The tokens up to the end of the first n-gram that stood before."""
    last = loop_start(tokens)
    return tokens if last is None else tokens[: last + 1]


def generate(
    engine: CalibrationEngine, prompt: Sequence[int], sampler: Sampler, rng: np.random.Generator, n: int
) -> list[int]:
    """A dense answer of at most n tokens, without the stop token, up to its first repeated n-gram."""
    engine.prefill(prompt)
    tokens: list[int] = []
    events = driver.run(Dense(), engine, begin_decoding(engine, prompt, sampler, rng, n))
    with closing(events):  # type: ignore[type-var]
        for event in events:
            if not event.stop:
                tokens.append(event.token)
            if len(tokens) % NGRAM == 0 and loop_start(tokens) is not None:
                break
    return without_loop(tokens)


def read_states(
    engine: CalibrationEngine, start: int, tokens: Sequence[int], exit_layers: Sequence[int], plain: Sampler
) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
    """Teacher-forced pass over `tokens` from position `start` on: normalised states, and the best next tokens."""
    ends, (centred, _) = (*exit_layers, engine.n_layer), engine.head_shape()
    states = np.empty((len(ends), len(tokens), engine.n_embd), np.float16)
    best = np.empty(len(tokens), np.int32)
    engine.roll_back(start)
    for at in range(0, len(tokens), BATCH):
        rows: list[int] = []
        for token in tokens[at : at + BATCH]:
            rows.append(engine.append(token, rows[-1] if rows else TIP))
        chunk = slice(at, at + len(rows))
        for i, end in enumerate(ends):
            engine.advance(rows, end, logits=end == engine.n_layer)
            found = np.stack([engine.hidden(row) for row in rows])
            if centred and end == engine.n_layer:
                found -= found.mean(axis=1, keepdims=True)
            states[i, chunk] = normalise(found)
        best[chunk] = [engine.greedy(j, plain) for j in range(len(rows))]
        engine.commit(rows[-1])
    return states, best


def record(
    engine: CalibrationEngine, base: CalibratedModel, settings: Settings, folder: Path, progress: ProgressCallback
) -> list[Recording]:
    """Answers until the budget is used up. Raises CalibrationError when the model generates too few tokens."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    prompts = bundled_prompts()
    order = np.random.default_rng(settings.seed).permutation(len(prompts))
    exit_layers = candidate_exit_layers(engine.n_layer)
    if not exit_layers:
        raise CalibrationError(f"a model of {engine.n_layer} layers has nothing to skip")
    done: list[Recording] = []
    n_tokens, begin, spent_before = 0, time.monotonic(), _spent(folder)
    for turn in range(len(MODES) * len(prompts)):
        spent = spent_before + time.monotonic() - begin
        share = n_tokens / settings.tokens
        if n_tokens >= MIN_TIMED_TOKENS:
            share = max(share, spent / settings.seconds)
        progress("recording answers", min(share, 1.0))
        if share >= 1.0:
            break
        index = int(order[turn % len(prompts)])
        temperature, penalty = MODES[(turn + turn // len(prompts)) % len(MODES)]
        path = folder / f"{turn:05d}.npz"
        recording = _load(path, len(exit_layers) + 1, engine.n_embd)
        if recording is None:
            prompt = base.encode(prompts[index])
            if len(prompt) + settings.answer_tokens > engine.n_ctx or len(prompt) < 2:
                continue
            rng = np.random.default_rng((settings.seed, turn))
            with closing(base.make_sampler(temperature, penalty)) as sampler:
                tokens = generate(engine, prompt, sampler, rng, settings.answer_tokens)
            if not tokens:
                continue
            row_tokens = [prompt[-1], *tokens[:-1]]
            with closing(base.make_sampler(0.0, 1.0)) as plain:
                states, best = read_states(engine, len(prompt) - 1, row_tokens, exit_layers, plain)
            recording = Recording(index, np.array(prompt, np.int32), np.array(row_tokens, np.int32), states, best)
            with suppress(OSError):  # a full disk, say: only another run could not go on from here
                _save(path, recording)
                (folder / "seconds").write_text(f"{spent_before + time.monotonic() - begin:.1f}")
        done.append(recording)
        n_tokens += len(recording.row_tokens)
    if n_tokens < 500:
        raise CalibrationError(f"the model answered with {n_tokens} tokens in all, too few to learn from")
    return done


def _spent(folder: Path) -> float:
    try:
        return float(_regular(folder / "seconds").read_text())
    except (OSError, ValueError):
        return 0.0


def _regular(path: Path) -> Path:
    """What another program may have put there instead would be read without end. Raises OSError."""
    if not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path


def _save(path: Path, r: Recording) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    try:
        with part.open("wb") as file:
            np.savez(file, index=r.prompt_index, prompt=r.prompt, row_tokens=r.row_tokens, states=r.states, best=r.best)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _load(path: Path, n_states: int, n_embd: int) -> Recording | None:
    """A recording of an earlier run, None when there is none that fits."""
    try:
        with np.load(_regular(path)) as data:
            parts: dict[str, Any] = {name: data[name] for name in data.files}
        states = parts["states"]
        if states.shape[0] != n_states or states.shape[2] != n_embd:
            return None
        return Recording(int(parts["index"]), parts["prompt"], parts["row_tokens"], states, parts["best"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
