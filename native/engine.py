"""The engine: a model, its rows in flight, and its samplers, as typed Python over the C ABI.

Hidden states, K/V and logits stay inside of the library; Python passes positions and layers.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specee.native import abi, cpu, library
from specee.native.errors import NativeError
from specee.native.model import Model
from specee.native.sampler import Distribution, Sampler

__all__ = ["Cancelled", "Distribution", "Model", "RowEngine", "Sampler"]

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]

N_ROWS_MAX = 64
GRAPH_CACHE_MAX = 64
FLASH_ATTENTION_OFF = 0  # as llama-cpp-python does it: the reference that `dense` must equal


class Cancelled(Exception):  # noqa: N818 - a request that was met, not an error
    """`RowEngine.cancel` was called: nothing of the interrupted call counts."""


@dataclass(frozen=True, slots=True)
class Rise:
    """Where a row stopped, and what was seen on the way: see `specee.predictors.types.Rise`."""

    stopped: int
    scores: tuple[float, ...]
    best: int


def _int32_p(a: NDArray[np.int32]) -> Any:
    return a.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


def _float_p(a: Floats) -> Any:
    return a.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _f32(a: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(a, dtype=np.float32)


class RowEngine:
    """Rows in flight of one conversation over a model: implements `specee.predictors.types.Engine`.

    Of a model that cannot run in layer ranges (`model.unsupported`) it runs whole rows only.

    Every call raises NativeError when the library refuses, Cancelled when `cancel` was called meanwhile.
    """

    def __init__(
        self, model: Model, *, n_ctx: int = 4096, n_threads: int | None = None, n_batch: int = 512, seq: int = 0
    ) -> None:
        self.model, self.seq = model, seq
        self.lib, llama = model.lib, model.llama
        self.n_layer, self.n_embd, self.n_vocab = model.n_layer, model.n_embd, model.n_vocab
        self.n_threads = n_threads or cpu.usable_cores()
        self.tokens: list[int] = []  # what the cache holds, one token per position
        self._handle: int | None = None
        params = llama.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = n_batch
        params.n_threads = params.n_threads_batch = self.n_threads
        params.flash_attn_type = FLASH_ATTENTION_OFF
        params.no_perf = True
        self._context = llama.llama_init_from_model(model.handle, params)
        if not self._context:
            raise NativeError(
                "The model cannot start", f"no memory for a window of {n_ctx} tokens; try a smaller --ctx"
            )
        self.n_ctx = llama.llama_n_ctx(self._context)
        self.n_batch = llama.llama_n_batch(self._context)
        self._handle = self.lib.specee_rows_init(self._context, os.fsencode(model.path), N_ROWS_MAX, GRAPH_CACHE_MAX)
        if not self._handle:
            message = library.last_error()
            self.close()
            raise NativeError("The model cannot start", message)
        # reused arguments of the per-token calls
        self._pos = np.zeros(N_ROWS_MAX, dtype=np.int32)
        self._new = np.zeros(N_ROWS_MAX, dtype=np.int32)
        self._token, self._score = ctypes.c_int32(), ctypes.c_float()
        self._pos_p, self._new_p = _int32_p(self._pos), _int32_p(self._new)
        self._token_p, self._score_p = ctypes.pointer(self._token), ctypes.pointer(self._score)
        self._layers = (ctypes.c_int32 * self.n_layer)()
        self._scores = (ctypes.c_float * self.n_layer)()
        self._candidates = (ctypes.c_int32 * abi.K_MAX)()
        self._words: dict[int, str] = {}
        self._ids = np.zeros(self.n_vocab, dtype=np.int32)
        self._probs = np.zeros(self.n_vocab, dtype=np.float32)

    def _check(self, status: int) -> None:
        if status == abi.OK:
            return
        if status == abi.CANCELLED:
            raise Cancelled
        title = "The window is full" if status == abi.NO_SPACE else "The engine refused a step"
        raise NativeError(title, library.last_error())

    # ---- rows

    @property
    def length(self) -> int:
        """First position without a row."""
        return len(self.tokens)

    def prefill(self, tokens: Sequence[int], on_chunk: Callable[[int, int], None] | None = None) -> int:
        """Make the cache hold exactly these tokens, at full depth; logits row 0 is the last token's.

        What the cache already holds of them is kept (never the last one: its logits are wanted). `on_chunk(done,
        total)` is told after each chunk. Returns how many tokens were reused.
        """
        if not tokens:
            raise NativeError("Nothing to answer", "the prompt has no tokens")
        keep = 0
        for have, want in zip(self.tokens, tokens[:-1], strict=False):
            if have != want:
                break
            keep += 1
        try:
            self.roll_back(keep)
        except NativeError:  # recurrent memories cannot go back: start over
            keep = 0
            self.roll_back(0)
        at = keep
        while at < len(tokens):
            chunk = np.asarray(tokens[at : at + self.n_batch], dtype=np.int32)
            last = at + len(chunk) == len(tokens)
            self._check(
                self.lib.specee_rows_prefill(self._handle, self.seq, at, len(chunk), _int32_p(chunk), int(last))
            )
            self.tokens.extend(int(t) for t in chunk)
            at += len(chunk)
            if on_chunk is not None:
                on_chunk(at - keep, len(tokens) - keep)
        return keep

    def advance(self, pos: int, n: int, end: int, tokens: Sequence[int] | None = None, logits: bool = False) -> None:
        """Take the n rows at pos.. to depth `end`; `tokens` starts new rows; `logits` (end = n_layer) runs the head."""
        for i in range(n):
            self._pos[i] = pos + i
        if tokens is not None:
            self._new[:n] = tokens
        status = self.lib.specee_rows_advance(
            self._handle,
            self.seq,
            n,
            self._pos_p,
            None if tokens is None else self._new_p,
            end,
            abi.LOGITS if logits else 0,
        )
        if status != abi.OK:
            self._check(status)
        if tokens is not None:
            self.tokens.extend(tokens)

    def propagate(self, pos: int, n: int) -> None:
        """Fill K and V of the remaining layers of n rows from their present hidden state (approximate)."""
        for i in range(n):
            self._pos[i] = pos + i
        self._check(
            self.lib.specee_rows_advance(self._handle, self.seq, n, self._pos_p, None, self.n_layer, abi.KV_ONLY)
        )

    def lens_head(self, pos: int) -> None:
        """Logits (row 0) of the hidden state at `pos` through the lens of its depth."""
        self._check(self.lib.specee_rows_lens_head(self._handle, self.seq, pos))

    def roll_back(self, length: int) -> None:
        """Forget every position from `length` on."""
        self._check(self.lib.specee_rows_roll_back(self._handle, self.seq, length))
        del self.tokens[length:]

    def depth(self, pos: int) -> int:
        """Layers done of the row at `pos`, -1 where there is none."""
        return int(self.lib.specee_rows_depth(self._handle, self.seq, pos))

    def hidden(self, pos: int) -> Floats:
        """Hidden state of a recent row at its depth, a copy: float32 [n_embd]."""
        pointer = self.lib.specee_rows_hidden(self._handle, self.seq, pos)
        if not pointer:
            raise NativeError("The engine refused a step", library.last_error())
        return np.array(np.ctypeslib.as_array(pointer, (self.n_embd,)), np.float32)

    def logits(self, row: int) -> Floats:
        """One row of the last logits, a copy: float32 [n_vocab]."""
        pointer = self.lib.specee_rows_logits(self._handle, row)
        if not pointer:
            raise NativeError("The engine refused a step", library.last_error())
        return np.array(np.ctypeslib.as_array(pointer, (self.n_vocab,)), np.float32)

    # ---- probe and drafts

    def probe(self, pos: int, candidates: Tokens) -> float:
        """Predictor score of the row at its depth for the candidates: int32 [k]."""
        status = self.lib.specee_rows_probe(
            self._handle, self.seq, pos, len(candidates), _int32_p(candidates), self._score_p, None
        )
        if status != abi.OK:
            self._check(status)
        return self._score.value

    def features(self, pos: int, candidates: Tokens) -> tuple[float, Floats]:
        """A probe with the predictor's inputs: float32 [3k]."""
        k = len(candidates)
        features = np.zeros(3 * k, dtype=np.float32)
        self._check(
            self.lib.specee_rows_probe(
                self._handle, self.seq, pos, k, _int32_p(candidates), self._score_p, _float_p(features)
            )
        )
        return self._score.value, features

    def rise(
        self, token: int | None, layers: Sequence[int], k: int, candidates: Sequence[int], threshold: float
    ) -> Rise:
        """Raise the last row (a new one of `token`) from layer to layer until its score is above the threshold.

        Rows that wait below come along. With k > 0 the score is the predictor's for the k candidates; with
        k = 0 it is the margin rule's lead.
        """
        n = len(layers)
        self._layers[:n] = list(layers)
        self._candidates[: len(candidates)] = list(candidates)
        self._token.value = -1
        stopped = self.lib.specee_rows_rise(
            self._handle,
            self.seq,
            -1 if token is None else token,
            n,
            self._layers,
            k,
            self._candidates,
            threshold,
            self._scores,
            self._token_p,
        )
        if token is not None and self.lib.specee_rows_length(self._handle, self.seq) > len(self.tokens):
            self.tokens.append(token)
        if stopped < 0:
            self._check(stopped)
        return Rise(stopped, tuple(self._scores[: min(stopped + 1, n)]), self._token.value)

    def draft(self, pos: int, token: int, k: int) -> Tokens:
        """The linear head's k best guesses for the token after `token` at `pos`: int32 [k]."""
        out = np.empty(k, dtype=np.int32)
        status = self.lib.specee_rows_draft(self._handle, self.seq, pos, token, k, _int32_p(out))
        if status != abi.OK:
            self._check(status)
        return out

    def set_lens(self, layer: int, down: NDArray[np.uint8], up: NDArray[np.uint8] | None, bias: Floats) -> None:
        """Lens of a layer: Q8_0 bytes of [rank, n_embd] and [n_embd, rank] (None: square), bias float32 [n_embd]."""
        down, bias = np.ascontiguousarray(down), _f32(bias)
        up = None if up is None else np.ascontiguousarray(up)
        up_data = None if up is None else up.ctypes.data
        self._check(
            self.lib.specee_lens_set(self._handle, layer, down.shape[0], down.ctypes.data, up_data, _float_p(bias))
        )

    def set_predictor(self, layer: int, w1: Floats, b1: Floats, w2: Floats, b2: float) -> None:
        """Predictor of a layer: w1 float32 [n_hidden, 3k], b1 and w2 [n_hidden]."""
        w1, b1, w2 = _f32(w1), _f32(b1), _f32(w2).reshape(-1)
        self._check(
            self.lib.specee_predictor_set(
                self._handle, layer, w1.shape[1] // 3, w1.shape[0], _float_p(w1), _float_p(b1), _float_p(w2), float(b2)
            )
        )

    def set_shortlist(self, tokens: Tokens, up: NDArray[np.uint8]) -> None:
        """Frequent tokens int32 [n] and their head rows, Q8_0 bytes of [n, n_embd]."""
        tokens, up = np.ascontiguousarray(tokens, dtype=np.int32), np.ascontiguousarray(up)
        self._check(self.lib.specee_shortlist_set(self._handle, len(tokens), _int32_p(tokens), up.ctypes.data))

    def set_draft(self, down: NDArray[np.uint8], tokens: Tokens, up: NDArray[np.uint8], bias: Floats) -> None:
        """Linear draft head: Q8_0 bytes of [rank, 2 n_embd] and [n, rank], shortlist int32 [n], bias float32 [n]."""
        down, up = np.ascontiguousarray(down), np.ascontiguousarray(up)
        tokens, bias = np.ascontiguousarray(tokens, dtype=np.int32), _f32(bias)
        self._check(
            self.lib.specee_draft_set(
                self._handle,
                down.shape[0],
                down.ctypes.data,
                len(tokens),
                _int32_p(tokens),
                up.ctypes.data,
                _float_p(bias),
            )
        )

    def embedding_rows(self, tokens: Sequence[int] | Tokens) -> Floats:
        """Token embeddings: float32 [n, n_embd]."""
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        out = np.empty((len(ids), self.n_embd), dtype=np.float32)
        self._check(self.lib.specee_embedding_rows(self._handle, len(ids), _int32_p(ids), _float_p(out)))
        return out

    def head_rows(self, tokens: Sequence[int] | Tokens) -> Floats:
        """Rows of the LM head times the final norm's weight: float32 [n, n_embd]."""
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        out = np.empty((len(ids), self.n_embd), dtype=np.float32)
        self._check(self.lib.specee_head_rows(self._handle, len(ids), _int32_p(ids), _float_p(out)))
        return out

    # ---- sampling

    def greedy(self, row: int, sampler: Sampler) -> int:
        """The most probable token of logits row `row` under the sampler's shaping."""
        status = self.lib.specee_rows_greedy(self._handle, row, sampler.penalties, sampler.preselect, self._token_p)
        if status != abi.OK:
            self._check(status)
        return self._token.value

    def distribution(self, row: int, sampler: Sampler) -> Distribution:
        """The shaped distribution of logits row `row`."""
        n = self.lib.specee_rows_distribution(
            self._handle,
            row,
            sampler.chain,
            sampler.preselect,
            self.n_vocab,
            _int32_p(self._ids),
            _float_p(self._probs),
        )
        if n < 0:
            self._check(n)
        return Distribution(self._ids[:n].copy(), self._probs[:n].copy())

    def is_stop(self, token: int) -> bool:
        """Whether the token ends the generation."""
        return self.model.is_stop(token)

    def word(self, token: int) -> str:
        """Letters and digits of the token's text in lower case."""
        known = self._words.get(token)
        if known is None:
            text = self.model.piece(token).decode("utf-8", "ignore")
            known = self._words[token] = "".join(filter(str.isalnum, text)).lower()
        return known

    # ---- control

    @property
    def active_threads(self) -> int:
        """Threads that the next computation takes: fewer than `n_threads` while other processes keep cores busy."""
        return int(self.lib.specee_rows_threads(self._handle))

    def fix_threads(self, n: int) -> None:
        """Compute with exactly n threads from now on; 0: as the machine allows (for measurements and tests)."""
        self.lib.specee_rows_fix_threads(self._handle, n)

    def limit_single(self, n: int) -> None:
        """At most n threads for one row, which waits for memory; more rows at once take all."""
        self.lib.specee_rows_limit_single(self._handle, n)

    def cancel(self) -> None:
        """Stop a computation under way in another thread; later calls raise Cancelled too, until `resume`."""
        self.lib.specee_rows_cancel(self._handle)

    def resume(self) -> None:
        """Take back `cancel`."""
        self.lib.specee_rows_resume(self._handle)

    def close(self) -> None:
        """Free the rows and the context."""
        if self._handle:
            self.lib.specee_rows_free(self._handle)
            self._handle = None
        if self._context:
            self.model.llama.llama_free(self._context)
            self._context = None
