"""An EAGLE-3 head in llama.cpp's format, next to the model that it drafts for."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from specee.native import abi, library, log
from specee.native.abi import float_p, int32_p
from specee.native.context import FLASH_ATTENTION_OFF, cannot_start
from specee.native.errors import NativeError
from specee.native.layer_states import LayerStatesEngine
from specee.native.model import Model

N_BATCH = 128  # tokens that are read at once
STEP_SIZES, STEP_ROUNDS = (1, 2, 4, 8), 3


class EagleHead:
    """Follows the target's conversation: reads its tokens with the states that the target made of the ones before.

    Tokens that are drafted have none yet: there the head goes on with its own, until `settle`. Free it before `target`.
    Raises NativeError when there is no memory for it.
    """

    n_at_once = 8

    def __init__(self, model: Model, target: LayerStatesEngine) -> None:
        self.tokens: list[int] = []
        self.n_ctx, self.n_vocab = target.n_ctx, model.n_vocab
        self._model, self._target, self._lib = model, target, model.lib
        self._n_settled = 0  # so many of the tokens were read with the target's states
        self._token, self._prob = ctypes.c_int32(), ctypes.c_float()
        self._token_p, self._prob_p = ctypes.pointer(self._token), ctypes.pointer(self._prob)
        self._handle: int | None = None
        llama = model.llama
        params = llama.llama_context_default_params()
        params.n_ctx = target.n_ctx
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_threads = params.n_threads_batch = target.n_threads
        params.flash_attn_type = FLASH_ATTENTION_OFF
        params.no_perf = True
        params.ctx_other = target._context  # embeddings and LM head, where it has none
        library.need_memory("the EAGLE-3 head's window")
        log.listen(llama)
        self._context: Any = llama.llama_init_from_model(model.handle, params)
        if not self._context:
            raise cannot_start("The EAGLE-3 head", f"a window of {target.n_ctx} tokens", "try a smaller --ctx")
        self._handle = self._lib.specee_eagle_head_init(self._context, target._handle, target.slot)
        if not self._handle:
            message = library.last_error()
            self.close()
            raise NativeError("The EAGLE-3 head cannot start", message)

    def step_times(self) -> dict[int, float]:
        """Seconds to read n tokens, by n; before it has read any."""
        times: dict[int, float] = {}
        for n in STEP_SIZES:
            tokens, features = (
                np.zeros(n, np.int32),
                np.zeros((n, len(self._target.layers) * self._target.n_embd), "f4"),
            )
            taken = []
            for _ in range(STEP_ROUNDS):
                began = time.perf_counter()
                self._check(self._lib.specee_eagle_head_read(self._handle, n, int32_p(tokens), float_p(features)))
                taken.append(time.perf_counter() - began)
                self._check(self._lib.specee_eagle_head_roll_back(self._handle, 0))
            times[n] = min(taken)  # the first one builds graphs
        return {n: min(times[more] for more in times if more >= n) for n in times}  # another program had the machine

    def settle(self, n: int) -> bool:
        """The text has n verified tokens: what was read with the head's own states is forgotten.

        False where the target did not keep the states of all but the last one.
        """
        self.roll_back(min(self._n_settled, len(self.tokens)))
        return self._target.n_known >= n - 1

    def read(self, tokens: Sequence[int]) -> None:
        """Tokens after those that were read; `best` is about the last one."""
        rest = list(tokens)
        if not self.tokens:
            self.tokens.append(rest.pop(0))  # nothing is before it: there is nothing to read yet
            self._n_settled = 1
        while rest:
            at = len(self.tokens)
            n = min(len(rest), N_BATCH, self._target.n_known - at + 1) if self._n_settled == at else 0
            if n > 0:
                part = (ctypes.c_int32 * n)(*rest[:n])
                self._check(self._lib.specee_eagle_head_read(self._handle, n, part, None))
                self._n_settled += n
            else:
                n = 1
                self._check(self._lib.specee_eagle_head_extend(self._handle, rest[0]))
            self.tokens.extend(rest[:n])
            del rest[:n]

    def roll_back(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if length < len(self.tokens):
            self._check(self._lib.specee_eagle_head_roll_back(self._handle, max(length - 1, 0)))
            del self.tokens[length:]
            self._n_settled = min(self._n_settled, length)

    def best(self) -> tuple[int, float]:
        """The token that the head expects after the last one, and its probability."""
        self._check(self._lib.specee_eagle_head_best(self._handle, self._token_p, self._prob_p))
        return self._token.value, self._prob.value

    def _check(self, status: int) -> None:
        if status != abi.OK:
            raise NativeError("The engine refused a call", library.last_error())

    def close(self) -> None:
        """Free the head and its context, not its weights."""
        if self._handle:
            self._lib.specee_eagle_head_free(self._handle)
            self._handle = None
        if self._context:
            self._model.llama.llama_free(self._context)
            self._context = None
