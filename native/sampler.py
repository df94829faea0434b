"""llama.cpp's samplers, which shape a row of logits; the policies choose the token."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from specee.native import abi, library
from specee.native.errors import NativeError
from specee.native.model import Model
from specee.native.weights import Floats

ANSWER_WINDOW = 1 << 16
"""Tokens of an answer that presence and frequency penalties count, at most."""


class Sampler:
    """Shapes logits: biases, penalties, a grammar, top-k, top-p, min-p, temperature (0: greedy), in this order.

    The repetition penalty looks at the last `repeat_last_n` tokens of the chat, presence and frequency penalties at the
    answer. Tokens that end an answer are exempt: where each turn before has one, answers would never end.

    Raises NativeError for a grammar that cannot be read. Must be closed.
    """

    def __init__(
        self,
        model: Model,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repeat_penalty: float = 1.0,
        repeat_last_n: int = 64,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Sequence[tuple[int, float]] = (),
        grammar: str | None = None,
        top_logprobs: int | None = None,
    ) -> None:
        library.need_memory("the samplers of an answer")
        self._llama, self._lib, self._is_stop = model.llama, model.lib, model.is_stop
        self._last_n, self._top_logprobs = repeat_last_n, top_logprobs
        self.is_greedy = temperature <= 0
        self._seen: Floats | None = None  # the row of logits that was looked at last
        self._repetition = self._presence = self._grammar = None
        if grammar is not None:
            self._grammar = self._lib.specee_grammar_init(model.vocab, grammar.encode())
            if not self._grammar:
                raise NativeError(
                    "The grammar was refused", f"{library.last_error()}; it must be GBNF with a rule root"
                )
        self._logits, self._filters = self._chain(), self._chain()
        llama, n_vocab = self._llama, model.n_vocab
        if logit_bias:
            biases = (llama.llama_logit_bias * len(logit_bias))(*logit_bias)
            self._add(self._logits, llama.llama_sampler_init_logit_bias(n_vocab, len(logit_bias), biases))
        if repeat_penalty != 1.0 and repeat_last_n > 0:
            self._repetition = llama.llama_sampler_init_penalties(n_vocab, repeat_last_n, repeat_penalty, 0.0, 0.0)
            self._add(self._logits, self._repetition)
        if presence_penalty or frequency_penalty:
            self._presence = llama.llama_sampler_init_penalties(
                n_vocab, ANSWER_WINDOW, 1.0, frequency_penalty, presence_penalty
            )
            self._add(self._logits, self._presence)
        if not self.is_greedy:
            if top_k > 0:
                self._add(self._filters, llama.llama_sampler_init_top_k(top_k))
            if top_p < 1.0:
                self._add(self._filters, llama.llama_sampler_init_top_p(top_p, 1))
            if min_p > 0.0:
                self._add(self._filters, llama.llama_sampler_init_min_p(min_p, 1))
            self._add(self._filters, llama.llama_sampler_init_temp(temperature))
        self._reshapes = bool(logit_bias or self._repetition or self._presence)
        n_wanted = 1 if self.is_greedy else top_k
        n_lowered = repeat_last_n if self._repetition else 0
        sees_all = bool(logit_bias or self._presence) or repeat_penalty < 1.0 or n_wanted == 0
        self.shaping = abi.Shaping(
            logits=ctypes.cast(self._logits, ctypes.c_void_p) if self._reshapes else None,
            grammar=self._grammar,
            filters=None if self.is_greedy else ctypes.cast(self._filters, ctypes.c_void_p),
            preselect=0 if sees_all else n_wanted + n_lowered,
            n_wanted=n_wanted,
            min_p=min_p,
        )
        self._shaping_p = ctypes.pointer(self.shaping)

    def _chain(self) -> Any:
        return self._llama.llama_sampler_chain_init(self._llama.llama_sampler_chain_default_params())

    def _add(self, chain: Any, sampler: Any) -> None:
        self._llama.llama_sampler_chain_add(chain, sampler)

    @property
    def is_plain(self) -> bool:
        """Greedy, and nothing but the choice is wanted of the logits: the best one wins."""
        return self.is_greedy and not self._reshapes and self._grammar is None and self._top_logprobs is None

    @property
    def remembers(self) -> bool:
        """Whether it depends on the tokens so far."""
        return any(part is not None for part in (self._repetition, self._presence, self._grammar))

    @property
    def greedy_shaping(self) -> Any:
        """For a greedy choice: nothing where nothing can change the order."""
        return self._shaping_p if self._reshapes or self._grammar is not None else None

    @property
    def whole_shaping(self) -> Any:
        """For a distribution."""
        return self._shaping_p

    def allows(self, token: int) -> bool:
        """Whether the grammar allows it as the next token."""
        return self._grammar is None or self._lib.specee_grammar_allows(self._grammar, token) == 1

    def accept(self, token: int) -> None:
        """Count a token of the answer. Raises NativeError for one that the grammar forbids."""
        if self._grammar is not None:
            self._check(self._lib.specee_grammar_accept(self._grammar, token))
        if self._is_stop(token):
            return
        if self._repetition is not None:
            self._check(self._lib.specee_sampler_accept(self._repetition, token))
        if self._presence is not None:
            self._check(self._lib.specee_sampler_accept(self._presence, token))

    def rewind(self, prompt: Sequence[int], answer: Sequence[int] = ()) -> None:
        """Forget what was accepted and take these tokens instead: the chat before the answer, and its beginning.

        The answer must be the beginning of what was accepted where there is a grammar.
        """
        if self._grammar is not None:
            self._check(self._lib.specee_grammar_rewind(self._grammar, len(answer)))
        if self._repetition is not None:
            self._replay(self._repetition, reversed(answer), reversed(prompt), limit=self._last_n)
        if self._presence is not None:
            self._replay(self._presence, reversed(answer), limit=ANSWER_WINDOW)

    def _replay(self, penalties: Any, *backwards: Iterator[int], limit: int) -> None:
        """The last tokens of texts, which are given from their ends on."""
        self._check(self._lib.specee_sampler_reset(penalties))
        counted = (token for text in backwards for token in text if not self._is_stop(token))
        for token in reversed(list(islice(counted, limit))):
            self._check(self._lib.specee_sampler_accept(penalties, token))

    def _check(self, status: int) -> None:
        if status != abi.OK:
            raise NativeError("The grammar refused a token", library.last_error())

    # ---- logprobs

    @property
    def wants_logprobs(self) -> bool:
        """Whether `see` is to be called with each row of logits from which a token is chosen."""
        return self._top_logprobs is not None

    def see(self, logits: Floats) -> None:
        """A row of logits before any shaping: [n_vocab]."""
        self._seen = logits

    def logprobs(self, token: int) -> tuple[tuple[int, float], ...]:
        """The token, then the likeliest ones, each with its logprob in the row that was seen last; () if not wanted."""
        if self._seen is None or self._top_logprobs is None:
            return ()
        row = self._seen.astype(np.float64)
        row -= row.max()
        row -= np.log(np.exp(row).sum())
        best = np.argpartition(-row, min(self._top_logprobs, len(row) - 1))[: self._top_logprobs]
        best = best[np.lexsort((best, -row[best]))]
        return tuple((int(each), float(row[each])) for each in (token, *best))

    def close(self) -> None:
        """Free the samplers."""
        for chain in (self._logits, self._filters):
            if chain:
                self._llama.llama_sampler_free(chain)
        if self._grammar is not None:
            self._lib.specee_grammar_free(self._grammar)
        self._logits = self._filters = self._grammar = None
