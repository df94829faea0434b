"""What a row would show at each boundary: the lens's best word, probabilities of the candidates, the margin's lead.

Vocabulary-sized arrays exist only in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.recorded_rows import Data, Mask, Rows
from specee.predictors.calibration.settings import CalibrationEngine
from specee.predictors.exits.features import inverse_rms, sliced_logits, softmax
from specee.predictors.exits.lens import LowRank
from specee.predictors.types import Floats, Tokens

_WORDS = 8192  # LM head rows at a time
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Looks:
    """Rows `rows` at one boundary."""

    word: NDArray[np.int32]
    """[n] best word of the whole vocabulary through the lens."""
    logits: Floats
    """[n, k] of the candidates."""
    probs: Floats
    passes: Mask
    """[n] the best word is among the candidates, and not the row's own token: what the checks let through."""
    right: Mask
    """[n] the best word is the dense model's."""
    regret: Floats
    """[n] what the best word lacks to the dense model's, in the dense model's logits: nats of perplexity."""
    short_word: NDArray[np.int32]
    """[n] best word of the shortlist."""
    lead: Floats
    """[n] its lead in probability; 0 for the row's own token, which is no exit."""
    short_regret: Floats


def best_words(
    lenses: dict[int, LowRank], data: Data, rows: Rows, engine: CalibrationEngine
) -> dict[int, NDArray[np.int32]]:
    """Best word of the whole vocabulary for each row through each lens."""
    codes = {b: lens.code(data.states[b][rows]) for b, lens in lenses.items()}
    top = {b: np.full(len(rows), -np.inf, np.float32) for b in lenses}
    word = {b: np.zeros(len(rows), np.int32) for b in lenses}
    for start in range(0, engine.n_vocab, _WORDS):
        ids = np.arange(start, min(start + _WORDS, engine.n_vocab), dtype=np.int32)
        head = engine.head_rows(ids)
        for b, lens in lenses.items():
            up, bias = head @ lens.up, head @ lens.bias
            for at in range(0, len(rows), _ROWS):
                part = slice(at, at + _ROWS)
                scores = codes[b][part] @ up.T + bias
                place = scores.argmax(1)
                value = np.take_along_axis(scores, place[:, None], 1)[:, 0]
                better = value > top[b][part]
                top[b][part] = np.where(better, value, top[b][part])
                word[b][part] = np.where(better, ids[place], word[b][part])
    return word


def leads(lens: LowRank, states: NDArray[np.float16], head: Floats, words: Tokens) -> tuple[NDArray[np.int32], Floats]:
    """The margin rule's view: best word of the shortlist and its lead; head [n_short, n_embd]."""
    up, bias = head @ lens.up, head @ lens.bias
    word = np.empty(len(states), np.int32)
    lead = np.empty(len(states), np.float32)
    for at in range(0, len(states), _ROWS):
        part = slice(at, at + _ROWS)
        code = lens.code(states[part])
        scale = inverse_rms(code @ lens.up.T + lens.bias)
        scores = (code @ up.T + bias) * scale
        two = np.partition(scores, -2, axis=1)[:, -2:]  # second, first
        total = np.exp(scores - two[:, 1:]).sum(1)
        word[part] = words[scores.argmax(1)]
        lead[part] = (1.0 - np.exp(two[:, 0] - two[:, 1])) / total
    return word, lead


def regrets(data: Data, rows: Rows, words: NDArray[np.int32], engine: CalibrationEngine) -> Floats:
    """Dense logit of the dense model's word less that of `words` [n]: [n], zero where they are the same."""
    out = np.zeros(len(rows), np.float32)
    wrong = np.flatnonzero(words != data.best[rows])
    for at in range(0, len(wrong), _ROWS):
        some = wrong[at : at + _ROWS]
        apart = engine.head_rows(data.best[rows[some]]) - engine.head_rows(words[some])
        out[some] = np.maximum((apart * data.final[rows[some]].astype(np.float32)).sum(1), 0.0)
    return out


def look(
    lenses: dict[int, LowRank],
    data: Data,
    rows: Rows,
    cands: NDArray[np.int32],
    words: Tokens,
    engine: CalibrationEngine,
) -> dict[int, Looks]:
    """Everything about `rows` at every boundary; cands [n, k], words: the shortlist."""
    best = best_words(lenses, data, rows, engine)
    known, place = np.unique(cands, return_inverse=True)
    known_rows = engine.head_rows(known.astype(np.int32))
    place = place.reshape(cands.shape)
    short = engine.head_rows(words)
    out: dict[int, Looks] = {}
    for b, lens in lenses.items():
        logits = np.empty(cands.shape, np.float32)
        for at in range(0, len(rows), _ROWS):
            part = slice(at, at + _ROWS)
            logits[part] = sliced_logits(lens(data.states[b][rows[part]]), known_rows[place[part]])
        short_word, lead = leads(lens, data.states[b][rows], short, words)
        lead[short_word == data.token[rows]] = 0.0
        out[b] = Looks(
            word=best[b],
            logits=logits,
            probs=softmax(logits),
            passes=(cands == best[b][:, None]).any(1) & (best[b] != data.token[rows]),
            right=best[b] == data.best[rows],
            regret=regrets(data, rows, best[b], engine),
            short_word=short_word,
            lead=lead,
            short_regret=regrets(data, rows, short_word, engine),
        )
    return out
