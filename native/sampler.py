"""llama.cpp's samplers, which shape a row of logits; the policies choose the token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specee.native.model import Model


class Sampler:
    """llama.cpp's samplers as a shaper of logits: penalties, top-k, top-p, min-p, temperature (0: greedy)."""

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
    ) -> None:
        llama = self._llama = model.llama
        self._last_n = repeat_last_n
        self.is_greedy = temperature <= 0
        self.chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())

        def add(sampler: Any) -> None:
            llama.llama_sampler_chain_add(self.chain, sampler)

        self._penalised = repeat_penalty != 1.0 and repeat_last_n > 0
        if self._penalised:
            add(llama.llama_sampler_init_penalties(model.n_vocab, repeat_last_n, repeat_penalty, 0.0, 0.0))
        # greedy needs the best after the penalties only
        self.preselect = repeat_last_n + 1 if self.is_greedy else 0
        if not self.is_greedy:
            if top_k > 0:
                add(llama.llama_sampler_init_top_k(top_k))
                self.preselect = top_k + (repeat_last_n if self._penalised else 0)
            if top_p < 1.0:
                add(llama.llama_sampler_init_top_p(top_p, 1))
            if min_p > 0.0:
                add(llama.llama_sampler_init_min_p(min_p, 1))
            add(llama.llama_sampler_init_temp(temperature))
        if repeat_penalty < 1.0:
            self.preselect = 0  # raises logits: the whole vocabulary must be seen

    @property
    def is_plain(self) -> bool:
        """Greedy without penalties: the choice is the greatest logit."""
        return self.is_greedy and not self._penalised

    @property
    def window(self) -> int:
        """How many of the last tokens the penalties look at; 0 without penalties."""
        return self._last_n if self._penalised else 0

    @property
    def penalties(self) -> Any:
        """The chain for greedy choices: none when nothing can change the order."""
        return self.chain if self._penalised else None

    def accept(self, token: int) -> None:
        """Count a token as generated."""
        if self._penalised:
            self._llama.llama_sampler_accept(self.chain, token)

    def rewind(self, tokens: Sequence[int]) -> None:
        """Forget what was accepted and take these tokens instead (the last repeat_last_n count)."""
        if self._penalised:
            self._llama.llama_sampler_reset(self.chain)
            for token in tokens[-self._last_n :]:
                self._llama.llama_sampler_accept(self.chain, token)

    def close(self) -> None:
        """Free the samplers."""
        if self.chain:
            self._llama.llama_sampler_free(self.chain)
            self.chain = None
