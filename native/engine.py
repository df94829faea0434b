"""The engine: a model, its rows in flight, and its samplers, as typed Python over the C ABI.

Hidden states, K/V and logits stay inside of the library; Python passes the ids of rows, and layers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from specee.native import abi, library
from specee.native.abi import float_p, int32_p
from specee.native.context import N_ROWS_MAX, Cancelled
from specee.native.errors import NativeError
from specee.native.model import Model
from specee.native.sampler import Sampler
from specee.native.weights import Floats, Tokens, WeightedContext

__all__ = ["Cancelled", "ExitResult", "Floats", "Model", "RowEngine", "Sampler", "Tokens", "advance_together"]


@dataclass(frozen=True, slots=True)
class ExitResult:
    """Where a row stopped, and the probes on the way."""

    stop_index: int  # of the layer where it stopped; the number of layers when no score was above the threshold
    scores: tuple[float, ...]  # one for each probe
    best: int  # the margin rule's token at the last probe, -1 without that rule


class RowEngine(WeightedContext):
    """One conversation over a model: committed tokens, and rows in flight after them.

    A row is a token at a position; its depth is the number of layers done. Rows in flight advance from layer to layer,
    and are committed once they are complete, or dropped. The hidden states of the last few hundred rows stay readable.

    Rows in flight are a tree. The first child of each row continues the principal chain, which begins at the committed
    tokens; all other rows are side rows. What is computed for the chain is what its tokens alone would give, bit for
    bit; of a side row the last bits may differ, so it is never committed, but appended again.

    A context has `n_slots` conversations, each with a window of n_ctx tokens: this engine is slot 0, and `slots` are
    all of them. They share weights, threads, `cancel` and `close`; a row's bits do not depend on the other slots.

    What the model can do is proven when the engine is made. Where rows run whole (`no_ranges`): append, advance to
    n_layer, commit. Where tokens cannot be drafted (`no_drafts`): one row after the other.

    Every call raises NativeError when the library refuses it, which changes nothing; and Cancelled when `cancel` was
    called meanwhile. Of a memory that cannot go back, a call that was under way then may lose all: `length` is 0.
    """

    slots: tuple[RowEngine, ...] = ()

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int = 4096,
        n_slots: int = 1,
        n_threads: int | None = None,
        n_batch: int = 512,
        kv_type: str = "f16",
    ) -> None:
        super().__init__(model, n_ctx=n_ctx, n_slots=n_slots, n_threads=n_threads, n_batch=n_batch, kv_type=kv_type)
        slots = (self, *(copy(self) for _ in range(1, n_slots)))
        for i, engine in enumerate(slots):
            engine.slots = slots
            engine._begin(i)

    def _begin(self, slot: int) -> None:
        """What each slot has for itself."""
        self.slot = slot
        self.tokens: list[int] = []  # committed, one for each position
        self._chain: dict[int, int] = {}  # the principal chain: row -> token, in order of position
        self._n_side = 0  # side rows
        self._letters: dict[int, str] = {}
        # reused arguments of the calls for each token
        self._ids = (ctypes.c_int32 * N_ROWS_MAX)()
        self._layers = (ctypes.c_int32 * self.n_layer)()
        self._candidates = (ctypes.c_int32 * abi.K_MAX)()
        self._scores = (ctypes.c_float * self.n_layer)()
        self._token = ctypes.c_int32()
        self._token_p = ctypes.pointer(self._token)
        self._drafted = np.zeros(abi.K_MAX, dtype=np.int32)
        self._shaped, self._probs = np.zeros(self.n_vocab, dtype=np.int32), np.zeros(self.n_vocab, dtype=np.float32)
        self._drafted_p = int32_p(self._drafted)
        self._shaped_p, self._probs_p = int32_p(self._shaped), float_p(self._probs)

    def close(self) -> None:
        """Free the context, for all of its slots."""
        super().close()
        for engine in self.slots:
            engine._handle = engine._context = None

    # ---- the conversation

    @property
    def length(self) -> int:
        """Committed positions."""
        return len(self.tokens)

    @property
    def n_in_flight(self) -> int:
        """Rows in flight after them."""
        return len(self._chain) + self._n_side

    @property
    def tip(self) -> int:
        """The last committed row, whose final state drafts start from; -1 when it is not kept."""
        return int(self.lib.specee_rows_tip(self._handle, self.slot))

    def prefill(self, tokens: Sequence[int], on_chunk: Callable[[int, int], None] | None = None) -> int:
        """Make exactly these tokens the committed ones, at full depth; logits row 0 is the last token's.

        What the cache already holds of them is kept (never the last one: its logits are wanted), rows in flight are
        dropped. `on_chunk(done, total)` is called after each chunk. Returns how many tokens were reused.
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
            self._check(self.lib.specee_rows_prefill(self._handle, self.slot, len(chunk), int32_p(chunk), int(last)))
            self.tokens.extend(int(t) for t in chunk)
            at += len(chunk)
            if on_chunk is not None:
                on_chunk(at - keep, len(tokens) - keep)
        return keep

    def forward(self, token: int) -> int:
        """One token of dense decoding: all layers, logits (row 0), committed. Returns its row.

        When it raises, nothing has changed.
        """
        row: int = self.lib.specee_rows_forward(self._handle, self.slot, token)
        if row < 0:
            self._check(row)
        self.tokens.append(token)
        return row

    def commit(self, row: int, *, keep_rest: bool = False) -> None:
        """The principal chain up to this row, all complete, becomes part of the committed rows; the rest is dropped.

        `keep_rest`: the rows of the chain after it stay in flight; there are no others.
        """
        commit = self.lib.specee_rows_commit_first if keep_rest else self.lib.specee_rows_commit
        status = commit(self._handle, row)
        if status != abi.OK:
            self._check(status)
        for passed in list(self._chain):
            self.tokens.append(self._chain.pop(passed))
            if passed == row:
                break
        if not keep_rest:
            self._drop()

    def roll_back(self, length: int) -> None:
        """Cut the committed tokens to `length` and drop all rows in flight."""
        status = self.lib.specee_rows_roll_back(self._handle, self.slot, length)
        if status != abi.OK:
            self._check(status)
        del self.tokens[length:]
        self._drop()

    def _drop(self) -> None:
        self._chain.clear()
        self._n_side = 0

    def _check(self, status: int) -> int:
        try:
            return super()._check(status)
        except (NativeError, Cancelled):
            if self.level == abi.DENSE:
                for slot in self.slots:
                    slot._forget_what_is_torn()
            raise

    def _forget_what_is_torn(self) -> None:
        """A memory that cannot go back may be beyond a computation that failed: then it begins anew."""
        memory = self.model.llama.llama_get_memory(self._context)
        if self.model.llama.llama_memory_seq_pos_max(memory, self.slot) != len(self.tokens) - 1:
            self.lib.specee_rows_roll_back(self._handle, self.slot, 0)
            self.tokens.clear()
            self._drop()

    # ---- rows

    def append(self, token: int, parent: int = -1) -> int:
        """A new row at depth 0, in flight after `parent`: a row in flight, or -1, the committed tokens. Returns its id.

        Nothing is computed. The first child continues the principal chain; the next ones are side rows.
        """
        row: int = self.lib.specee_rows_append(self._handle, self.slot, parent, token)
        if row < 0:
            self._check(row)
        if not self._chain or parent == next(reversed(self._chain)):
            self._chain[row] = token
        else:
            self._n_side += 1
        return row

    def in_chain(self, row: int) -> bool:
        """Whether this row in flight belongs to the principal chain, and can be committed."""
        return row in self._chain

    def advance(self, rows: Sequence[int], end: int, logits: bool = False) -> None:
        """Take rows in flight of equal depth to depth `end`; side rows from 0 to n_layer at once.

        The rows that they follow must be at least that deep, or among them. `logits` (with end = n_layer) runs the LM
        head: one row of logits for each.
        """
        self._advance(rows, end, abi.LOGITS if logits else 0)

    @property
    def stages(self) -> tuple[int, ...]:
        """Where the layers of one device end and those of the next one begin; the last one is n_layer."""
        places = self.model.places
        return tuple(i for i in range(1, self.n_layer + 1) if i == self.n_layer or places[i] != places[i - 1])

    def advance_stages(self, batches: Sequence[tuple[Sequence[int], int]], logits: bool = False) -> None:
        """Several batches at once, each of rows and where they go, see `advance`; the last layers first.

        Their ranges of layers have none in common. Those on different devices run at the same time. `logits`: of the
        batch that goes to n_layer.
        """
        rows = [row for batch, _ in batches for row in batch]
        counts, ends = [len(batch) for batch, _ in batches], [end for _, end in batches]
        arrays = [(ctypes.c_int32 * len(values))(*values) for values in (counts, rows, ends)]
        status = self.lib.specee_rows_advance_stages(self._handle, len(batches), *arrays, abi.LOGITS if logits else 0)
        if status != abi.OK:
            self._check(status)

    def _advance(self, rows: Sequence[int], end: int, flags: int) -> None:
        n = len(rows)
        if n > N_ROWS_MAX:
            raise NativeError("The engine refused a call", f"a batch must have 1 to {N_ROWS_MAX} rows")
        for i in range(n):
            self._ids[i] = rows[i]
        status = self.lib.specee_rows_advance(self._handle, n, self._ids, end, flags)
        if status != abi.OK:
            self._check(status)

    def complete(self, logits: bool = False) -> None:
        """Run the principal chain's deferred layers; `logits`: row i is that of the i-th one that had any."""
        status = self.lib.specee_rows_complete(self._handle, self.slot, abi.LOGITS if logits else 0)
        if status != abi.OK:
            self._check(status)

    def propagate_kv(self, row: int) -> None:
        """Write K and V of the row's remaining layers from its present hidden state (approximate)."""
        self._advance((row,), self.n_layer, abi.KV_ONLY)

    def depth(self, row: int) -> int:
        """Layers done of a row in flight or a recent one, -1 for an unknown one."""
        return int(self.lib.specee_rows_depth(self._handle, row))

    def hidden(self, row: int) -> Floats:
        """Hidden state of a row in flight or a recent one at its depth, a copy: float32 [n_embd]."""
        pointer = self.lib.specee_rows_hidden(self._handle, row)
        if not pointer:
            raise NativeError("The engine refused a call", library.last_error())
        return np.array(np.ctypeslib.as_array(pointer, (self.n_embd,)), np.float32)

    # ---- exits and drafts

    def run_to_exit(
        self, row: int, layers: Sequence[int], k: int, candidates: Sequence[int], threshold: float
    ) -> ExitResult:
        """Advance the last row from layer to layer and probe it at each, until its score is above the threshold.

        Rows before it join where it passes them. With k > 0 the score is the predictor's for the k candidates; with
        k = 0 it is the margin rule's lead.
        """
        n = len(layers)
        self._layers[:n] = list(layers)
        self._candidates[: len(candidates)] = list(candidates)
        self._token.value = -1
        stop_index = self.lib.specee_rows_run_to_exit(
            self._handle, row, n, self._layers, k, self._candidates, threshold, self._scores, self._token_p
        )
        if stop_index < 0:
            self._check(stop_index)
        return ExitResult(stop_index, tuple(self._scores[: min(stop_index + 1, n)]), self._token.value)

    def probe(self, row: int, candidates: Tokens) -> float:
        """Predictor score of the row at its depth for the candidates: int32 [k]."""
        self._ids[0] = row
        status = self.lib.specee_rows_probe(
            self._handle, 1, self._ids, len(candidates), int32_p(candidates), self._scores, None
        )
        if status != abi.OK:
            self._check(status)
        return float(self._scores[0])

    def features(self, row: int, candidates: Tokens) -> tuple[float, Floats]:
        """A probe with the predictor's inputs: float32 [3k]."""
        k = len(candidates)
        features = np.zeros(3 * k, dtype=np.float32)
        self._ids[0] = row
        self._check(
            self.lib.specee_rows_probe(
                self._handle, 1, self._ids, k, int32_p(candidates), self._scores, float_p(features)
            )
        )
        return float(self._scores[0]), features

    def lens_head(self, row: int) -> None:
        """Logits (row 0) of the row's hidden state through the lens of its depth."""
        self._check(self.lib.specee_rows_lens_head(self._handle, row))

    def draft(self, row: int, token: int, k: int) -> Tokens:
        """The linear head's k best guesses for the token after `token`, which follows the row: int32 [k]."""
        status = self.lib.specee_rows_draft(self._handle, row, token, k, self._drafted_p)
        if status != abi.OK:
            self._check(status)
        return np.array(self._drafted[:k], np.int32)

    # ---- logits and tokens

    def logits(self, i: int) -> Floats:
        """Row i of this slot in the last call that made logits, a copy: float32 [n_vocab]."""
        pointer = self.lib.specee_rows_logits(self._handle, self.slot, i)
        if not pointer:
            raise NativeError("The engine refused a call", library.last_error())
        return np.array(np.ctypeslib.as_array(pointer, (self.n_vocab,)), np.float32)

    def greedy(self, i: int, sampler: Sampler) -> int:
        """The most probable token of logits row i under the sampler's shaping."""
        if sampler.wants_logprobs:
            sampler.see(self.logits(i))
        status = self.lib.specee_rows_greedy(self._handle, self.slot, i, sampler.greedy_shaping, self._token_p)
        if status != abi.OK:
            self._check(status)
        return self._token.value

    def distribution(self, i: int, sampler: Sampler) -> tuple[Tokens, Floats]:
        """The shaped distribution of logits row i: tokens int32 [n], probabilities float32 [n], most probable first."""
        if sampler.wants_logprobs:
            sampler.see(self.logits(i))
        n = self.lib.specee_rows_distribution(
            self._handle, self.slot, i, sampler.whole_shaping, self.n_vocab, self._shaped_p, self._probs_p
        )
        if n < 0:
            self._check(n)
        return self._shaped[:n].copy(), self._probs[:n].copy()

    def is_stop(self, token: int) -> bool:
        """Whether the token ends the generation."""
        return self.model.is_stop(token)

    def letters(self, token: int) -> str:
        """Letters and digits of the token's text in lower case."""
        known = self._letters.get(token)
        if known is None:
            text = self.model.piece(token).decode("utf-8", "ignore")
            known = self._letters[token] = "".join(filter(str.isalnum, text)).lower()
        return known


def advance_together(batches: Sequence[tuple[RowEngine, Sequence[int]]], end: int, logits: bool = False) -> None:
    """Take rows of several slots of one context, all of equal depth, to depth `end` in one batch.

    At most `max_equal_rows` in all: each row gets the bits that it has when its slot runs alone. Afterwards each
    engine's logits rows are its own rows of this batch.
    """
    first = batches[0][0]
    if any(engine.slots is not first.slots for engine, _ in batches):
        raise NativeError("The engine refused a call", "the rows of a batch must be of one context")
    first._advance([row for _, rows in batches for row in rows], end, abi.LOGITS if logits else 0)
