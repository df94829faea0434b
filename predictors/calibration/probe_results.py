"""What a probe would see at each exit layer: the lens's best token, the candidates' probabilities, the margin's lead.

Vocabulary-sized arrays exist only in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.recorded_rows import Data, Mask, Rows
from specee.predictors.calibration.settings import CalibrationEngine
from specee.predictors.exits.features import inverse_rms, sliced_logits, softmax
from specee.predictors.exits.lm_head import LMHead
from specee.predictors.exits.low_rank import LowRank
from specee.predictors.types import Floats, Tokens

_HEAD_ROWS = 8192  # LM head rows at a time
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class ProbeResults:
    """Rows `rows` at one exit layer."""

    token: NDArray[np.int32]
    """[n] best token of the whole vocabulary through the lens."""
    logits: Floats
    """[n, k] of the candidates."""
    probs: Floats
    passes: Mask
    """[n] the best token is among the candidates, and not the row's own token: what the checks let through."""
    right: Mask
    """[n] the best token is the dense model's."""
    regret: Floats
    """[n] what the best token lacks to the dense model's, in the dense model's logits: nats of perplexity."""
    short_token: NDArray[np.int32]
    """[n] best token of the shortlist."""
    lead: Floats
    """[n] its lead in probability; 0 for the row's own token, which is no exit."""
    short_regret: Floats


def best_tokens(
    lenses: dict[int, LowRank], data: Data, rows: Rows, engine: CalibrationEngine
) -> dict[int, NDArray[np.int32]]:
    """Best token of the whole vocabulary for each row through each lens."""
    reduced_states = {layer: lens.reduce(data.states[layer][rows]) for layer, lens in lenses.items()}
    scales = {layer: _scales(reduced_states[layer], lens) for layer, lens in lenses.items()}
    top = {layer: np.full(len(rows), -np.inf, np.float32) for layer in lenses}
    token = {layer: np.zeros(len(rows), np.int32) for layer in lenses}
    for start in range(0, engine.n_vocab, _HEAD_ROWS):
        ids = np.arange(start, min(start + _HEAD_ROWS, engine.n_vocab), dtype=np.int32)
        head = LMHead.of(engine, ids)
        for layer, lens in lenses.items():
            up, bias = head.rows @ lens.up, head.rows @ lens.bias
            for at in range(0, len(rows), _ROWS):
                part = slice(at, at + _ROWS)
                scores = head.logits((reduced_states[layer][part] @ up.T + bias) * scales[layer][part])
                place = scores.argmax(1)
                value = np.take_along_axis(scores, place[:, None], 1)[:, 0]
                better = value > top[layer][part]
                top[layer][part] = np.where(better, value, top[layer][part])
                token[layer][part] = np.where(better, ids[place], token[layer][part])
    return token


def _scales(reduced: Floats, lens: LowRank) -> Floats:
    """1 / rms of a lens's outputs: [n, rank] -> [n, 1]."""
    scales = np.empty((len(reduced), 1), np.float32)
    for at in range(0, len(reduced), _ROWS):
        scales[at : at + _ROWS] = inverse_rms(reduced[at : at + _ROWS] @ lens.up.T + lens.bias)
    return scales


def leads(
    lens: LowRank, states: NDArray[np.float16], head: LMHead, shortlist: Tokens
) -> tuple[NDArray[np.int32], Floats]:
    """The margin rule's view: best token of the shortlist and its lead."""
    up, bias = head.rows @ lens.up, head.rows @ lens.bias
    token = np.empty(len(states), np.int32)
    lead = np.empty(len(states), np.float32)
    for at in range(0, len(states), _ROWS):
        part = slice(at, at + _ROWS)
        reduced = lens.reduce(states[part])
        scores = head.logits((reduced @ up.T + bias) * _scales(reduced, lens))
        two = np.partition(scores, -2, axis=1)[:, -2:]  # second, first
        total = np.exp(scores - two[:, 1:]).sum(1)
        token[part] = shortlist[scores.argmax(1)]
        lead[part] = (1.0 - np.exp(two[:, 0] - two[:, 1])) / total
    return token, lead


def regrets(data: Data, rows: Rows, tokens: NDArray[np.int32], engine: CalibrationEngine) -> Floats:
    """Dense logit of the dense model's token less that of `tokens` [n]: [n], zero where they are the same."""
    out = np.zeros(len(rows), np.float32)
    wrong = np.flatnonzero(tokens != data.best[rows])
    for at in range(0, len(wrong), _ROWS):
        some = wrong[at : at + _ROWS]
        final = data.final[rows[some]].astype(np.float32)
        dense, other = (LMHead.of(engine, which) for which in (data.best[rows[some]], tokens[some]))
        apart = dense.logits((dense.rows * final).sum(1)) - other.logits((other.rows * final).sum(1))
        out[some] = np.maximum(apart, 0.0)
    return out


def probe_all(
    lenses: dict[int, LowRank],
    data: Data,
    rows: Rows,
    candidates: NDArray[np.int32],
    shortlist: Tokens,
    engine: CalibrationEngine,
) -> dict[int, ProbeResults]:
    """Everything about `rows` at every exit layer; candidates [n, k]."""
    best = best_tokens(lenses, data, rows, engine)
    known, place = np.unique(candidates, return_inverse=True)
    head = LMHead.of(engine, known.astype(np.int32))
    place = place.reshape(candidates.shape)
    short = LMHead.of(engine, shortlist)
    out: dict[int, ProbeResults] = {}
    for layer, lens in lenses.items():
        logits = np.empty(candidates.shape, np.float32)
        for at in range(0, len(rows), _ROWS):
            part = slice(at, at + _ROWS)
            logits[part] = sliced_logits(lens(data.states[layer][rows[part]]), head, place[part])
        short_token, lead = leads(lens, data.states[layer][rows], short, shortlist)
        lead[short_token == data.token[rows]] = 0.0
        out[layer] = ProbeResults(
            token=best[layer],
            logits=logits,
            probs=softmax(logits),
            passes=(candidates == best[layer][:, None]).any(1) & (best[layer] != data.token[rows]),
            right=best[layer] == data.best[rows],
            regret=regrets(data, rows, best[layer], engine),
            short_token=short_token,
            lead=lead,
            short_regret=regrets(data, rows, short_token, engine),
        )
    return out
