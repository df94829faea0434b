"""Recording: the model answers our prompts, then the states of its rows are read off.

The work folder holds one file per answer, written in one step, so an interrupted recording goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.settings import (
    Base,
    CalibrationEngine,
    ProgressCallback,
    Settings,
    bundled_prompts,
    candidate_boundaries,
)
from specee.predictors.errors import CalibrationError
from specee.predictors.types import Floats, Sampler
from specee.predictors.verify import choose

MODES = ((0.0, 1.0), (0.7, 1.1), (0.0, 1.1))  # temperature, repetition penalty; one for each prompt in turn
LOOP = 12  # an answer ends at its first repeated n-gram of this length
BATCH = 64
LEAST = 2000  # tokens below which the time limit does not count


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer. Row i holds token i of `row_tokens`: the prompt's last token, then the answer's but its last.

    `states` [n_boundaries + 1, n_rows, n_embd] are float16 and divided by their rms; the last layer's come last.
    `best` [n_rows]: the dense model's most probable next token.
    """

    prompt_index: int
    prompt: NDArray[np.int32]
    row_tokens: NDArray[np.int32]
    states: NDArray[np.float16]
    best: NDArray[np.int32]

    @property
    def is_greedy(self) -> bool:
        """Whether the answer follows the dense model's most probable words (nearly: batches round otherwise)."""
        return bool(np.mean(self.row_tokens[1:] == self.best[:-1]) > 0.97) if len(self.best) > 1 else True


def normalise(states: Floats) -> Floats:
    """Divide each state by its root mean square: float32 [..., n_embd]."""
    square = np.mean(np.square(states, dtype=np.float64), axis=-1, keepdims=True)
    result: Floats = (states / np.sqrt(square + 1e-12)).astype(np.float32)
    return result


def without_loop(tokens: Sequence[int], n: int = LOOP) -> list[int]:
    """The tokens up to the end of the first n-gram that stood before."""
    seen: set[tuple[int, ...]] = set()
    for end in range(n, len(tokens) + 1):
        gram = tuple(tokens[end - n : end])
        if gram in seen:
            return list(tokens[:end])
        seen.add(gram)
    return list(tokens)


def answer(
    engine: CalibrationEngine, prompt: Sequence[int], sampler: Sampler, rng: np.random.Generator, n: int
) -> list[int]:
    """Dense decoding without the stop token."""
    engine.prefill(prompt)
    sampler.rewind(prompt)
    words: list[int] = []
    while len(words) < n and engine.length < engine.n_ctx:
        word = choose(engine, 0, sampler, rng)
        if engine.is_stop(word):
            break
        sampler.accept(word)
        words.append(word)
        if len(words) % LOOP == 0 and len(without_loop(words)) < len(words):
            break
        engine.advance(engine.length, 1, engine.n_layer, tokens=[word], logits=True)
    return without_loop(words)


def read_states(
    engine: CalibrationEngine, start: int, tokens: Sequence[int], boundaries: Sequence[int], plain: Sampler
) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
    """Teacher-forced pass over `tokens` from position `start` on: normalised states, and the best next tokens."""
    ends = (*boundaries, engine.n_layer)
    states = np.empty((len(ends), len(tokens), engine.n_embd), np.float16)
    best = np.empty(len(tokens), np.int32)
    engine.roll_back(start)
    for at in range(0, len(tokens), BATCH):
        chunk = list(tokens[at : at + BATCH])
        n = len(chunk)
        for i, end in enumerate(ends):
            new = chunk if i == 0 else None
            engine.advance(start + at, n, end, tokens=new, logits=end == engine.n_layer)
            rows = np.stack([engine.hidden(start + at + j) for j in range(n)])
            states[i, at : at + n] = normalise(rows)
        best[at : at + n] = [engine.greedy(j, plain) for j in range(n)]
    return states, best


def record(
    engine: CalibrationEngine, base: Base, settings: Settings, folder: Path, progress: ProgressCallback
) -> list[Recording]:
    """Answers until the budget is used up. Raises CalibrationError when the model says too little."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = bundled_prompts()
    order = np.random.default_rng(settings.seed).permutation(len(prompts))
    boundaries = candidate_boundaries(engine.n_layer)
    if not boundaries:
        raise CalibrationError(f"a model of {engine.n_layer} layers has nothing to skip")
    plain = base.make_sampler(0.0, 1.0)
    done: list[Recording] = []
    n_tokens, begin, spent_before = 0, time.monotonic(), _spent(folder)
    for turn in range(len(MODES) * len(prompts)):
        spent = spent_before + time.monotonic() - begin
        share = n_tokens / settings.tokens
        if n_tokens >= LEAST:
            share = max(share, spent / settings.seconds)
        progress("recording answers", min(share, 1.0))
        if share >= 1.0:
            break
        index = int(order[turn % len(prompts)])
        temperature, penalty = MODES[(turn + turn // len(prompts)) % len(MODES)]
        path = folder / f"{turn:05d}.npz"
        recording = _load(path, len(boundaries) + 1, engine.n_embd)
        if recording is None:
            prompt = base.encode(prompts[index])
            if len(prompt) + settings.answer_tokens > engine.n_ctx or len(prompt) < 2:
                continue
            rng = np.random.default_rng((settings.seed, turn))
            words = answer(engine, prompt, base.make_sampler(temperature, penalty), rng, settings.answer_tokens)
            if not words:
                continue
            row_tokens = [prompt[-1], *words[:-1]]
            states, best = read_states(engine, len(prompt) - 1, row_tokens, boundaries, plain)
            recording = Recording(index, np.array(prompt, np.int32), np.array(row_tokens, np.int32), states, best)
            _save(path, recording)
            (folder / "seconds").write_text(f"{spent_before + time.monotonic() - begin:.1f}")
        done.append(recording)
        n_tokens += len(recording.row_tokens)
    if n_tokens < 500:
        raise CalibrationError(f"the model answered with {n_tokens} tokens in all, too few to learn from")
    return done


def _spent(folder: Path) -> float:
    try:
        return float((folder / "seconds").read_text())
    except (OSError, ValueError):
        return 0.0


def _save(path: Path, r: Recording) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, index=r.prompt_index, prompt=r.prompt, row_tokens=r.row_tokens, states=r.states, best=r.best)
    part.replace(path)


def _load(path: Path, n_states: int, n_embd: int) -> Recording | None:
    """A recording of an earlier run, None when there is none that fits."""
    try:
        with np.load(path) as data:
            parts: dict[str, Any] = {name: data[name] for name in data.files}
        states = parts["states"]
        if states.shape[0] != n_states or states.shape[2] != n_embd:
            return None
        return Recording(int(parts["index"]), parts["prompt"], parts["row_tokens"], states, parts["best"])
    except (OSError, ValueError, KeyError, EOFError):
        return None
