"""Recordings as arrays, split by prompt, and the candidates that a decoder would have had.

Row j of all arrays is one row of an answer. The first row of an answer (the prompt's last token) is never probed: at
run time it is at full depth already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from specee.predictors.calibration.recording import Recording, normalise
from specee.predictors.calibration.settings import CalibrationEngine, Settings, candidate_exit_layers
from specee.predictors.decoding.build_policy import make_drafter
from specee.predictors.drafters.base import Budget
from specee.predictors.errors import CalibrationError
from specee.predictors.exits.low_rank import LowRank
from specee.predictors.exits.rules import ExitRules
from specee.predictors.types import Floats, Tokens

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Of ten prompts in order of first use: six for the lenses and the draft head, three for the predictors and thresholds
# (which must see text that the draft head has not seen), one for the metrics.
SPLIT = "aabaabaacb"


@dataclass(frozen=True, slots=True)
class Data:
    """All rows. `states[layer]` and `final` are [n, n_embd] float16, divided by their rms."""

    recordings: list[Recording]
    states: dict[int, NDArray[np.float16]]
    final: NDArray[np.float16]
    token: NDArray[np.int32]
    best: NDArray[np.int32]
    answer: NDArray[np.int32]
    """Which recording a row belongs to."""
    first: Mask
    """First row of its answer."""
    greedy: Mask
    """Rows of plain greedy answers: there agreement with the dense model means an unchanged token."""
    part: NDArray[np.str_]
    """'a', 'b' or 'c': see SPLIT."""

    @property
    def n(self) -> int:
        return len(self.token)

    def rows(self, parts: str, probed: bool = False) -> Rows:
        """Indices of the rows of some parts; `probed` leaves first rows out."""
        keep = np.isin(self.part, list(parts))
        return np.flatnonzero(keep & ~self.first if probed else keep)


def gather(recordings: Sequence[Recording], n_layer: int) -> Data:
    """Concatenate the recordings."""
    exit_layers = candidate_exit_layers(n_layer)
    place = {index: i for i, index in enumerate(dict.fromkeys(r.prompt_index for r in recordings))}
    lengths = [len(r.row_tokens) for r in recordings]
    starts = np.cumsum([0, *lengths[:-1]])
    first = np.zeros(sum(lengths), np.bool_)
    first[starts] = True
    parts = [SPLIT[place[r.prompt_index] % len(SPLIT)] for r in recordings]
    return Data(
        recordings=[replace(r, states=r.states[:, :0]) for r in recordings],  # the states move, they are large
        states={layer: np.concatenate([r.states[i] for r in recordings]) for i, layer in enumerate(exit_layers)},
        final=np.concatenate([r.states[-1] for r in recordings]),
        token=np.concatenate([r.row_tokens for r in recordings]).astype(np.int32),
        best=np.concatenate([r.best for r in recordings]).astype(np.int32),
        answer=np.repeat(np.arange(len(recordings)), lengths).astype(np.int32),
        first=first,
        greedy=np.repeat(np.array([r.is_greedy for r in recordings]), lengths),
        part=np.repeat(np.array(parts), lengths),
    )


def draft_inputs(data: Data, rows: Rows, engine: CalibrationEngine) -> NDArray[np.float16]:
    """[final state of the previous row ; embedding of the row's token], each divided by its rms: [n, 2 n_embd]."""
    tokens, place = np.unique(data.token[rows], return_inverse=True)
    embedded = normalise(engine.embedding_rows(tokens.astype(np.int32))).astype(np.float16)
    return np.concatenate([data.final[rows - 1], embedded[place]], axis=1)


def shortlist(data: Data, settings: Settings, n_vocab: int) -> Tokens:
    """Tokens that the scorers of a reduced vocabulary know: the most frequent ones, then the lowest ids."""
    count = np.bincount(data.best[data.rows("a")], minlength=n_vocab).astype(np.int64) * 4
    for i in np.unique(data.answer[data.rows("a")]):
        r = data.recordings[int(i)]
        np.add.at(count, np.concatenate([r.prompt, r.row_tokens]), 1)
    n = min(settings.shortlist, n_vocab)
    order = np.lexsort((np.arange(n_vocab), -count))  # count first; low ids are frequent merges
    return np.sort(order[:n]).astype(np.int32)


def top_tokens(scores: Floats, tokens: Tokens, k: int) -> NDArray[np.int32]:
    """The k best tokens of each row, best first: scores [n, n_tokens] -> [n, k]."""
    some = np.argpartition(scores, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, some, 1), axis=1)
    return tokens[np.take_along_axis(some, order, 1)]


@dataclass(slots=True)
class _Replayed:
    """What a drafter sees of a recorded answer; `row` counts the probed rows, in place of the engine's id."""

    row: int
    tokens: list[int]


def candidates(data: Data, rows: Rows, linear: NDArray[np.int32], rules: ExitRules) -> NDArray[np.int32]:
    """What the drafters propose for each of the probed rows: [n, k]. `linear` [n, k]: the linear head's tokens.

    Raises CalibrationError when they propose fewer than k: predictors take exactly k.
    """
    drafter = make_drafter(rules, lambda row, token, k: linear[row, :k])
    out = np.empty_like(linear)
    state, current = _Replayed(0, []), -1
    for i, row in enumerate(rows):
        if data.answer[row] != current:
            current = int(data.answer[row])
            drafter.begin([int(t) for t in data.recordings[current].prompt])
            state.tokens = []
        token = int(data.token[row])
        drafter.accept(token)
        state.row = i
        state.tokens.append(token)
        tokens = drafter.propose(state, Budget(width=rules.k)).tokens
        if len(tokens) != rules.k:
            raise CalibrationError(
                f"the drafters ({', '.join(rules.drafters)}) gave {len(tokens)} of {rules.k} candidates; "
                "the last one must always give as many as it is asked for"
            )
        out[i] = tokens
    return out


def linear_candidates(
    inputs: NDArray[np.float16], head: LowRank, up: Floats, bias: Floats, shortlist: Tokens, k: int
) -> NDArray[np.int32]:
    """The linear head's k best tokens for each row: inputs [n, 2 n_embd] -> [n, k]. `up`, `bias`: the scorer."""
    out = np.empty((len(inputs), k), np.int32)
    for at in range(0, len(inputs), 1024):
        out[at : at + 1024] = top_tokens(head.reduce(inputs[at : at + 1024]) @ up.T + bias, shortlist, k)
    return out


def fold_of(data: Data, rows: Rows, n_folds: int) -> NDArray[np.int64]:
    """A fold for each row, the same for all rows of a prompt."""
    prompts = np.array([r.prompt_index for r in data.recordings])
    known = {p: i for i, p in enumerate(dict.fromkeys(prompts[data.answer[rows]].tolist()))}
    return np.array([known[p] % n_folds for p in prompts[data.answer[rows]].tolist()], np.int64)
