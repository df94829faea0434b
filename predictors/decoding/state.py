"""One answer under way: what policies and drafters know of it, and the figures that are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from specee.predictors.decoding.stats import DecodingStats
from specee.predictors.types import Distribution, Engine, Logits, Logprobs, Probe, Sampler, TokenEvent, TokenState


@dataclass(frozen=True, slots=True)
class ChosenToken:
    """A chosen token, and how it came about. `q`: what it was drawn from, None for a token that was not drawn."""

    token: int
    exit_layer: int
    probes: tuple[Probe, ...] = ()
    candidates: tuple[int, ...] = ()
    q: Distribution | None = None
    drafter: str | None = None
    logprobs: Logprobs = ()
    """Where they are not those of the row of logits that was looked at last."""


def no_clock() -> float:
    """For callers that read no times."""
    return 0.0


@dataclass(slots=True)
class Decoding:
    """The answer to a prompt that was prefilled. Built by `begin_decoding`."""

    n_layer: int
    n_ctx: int
    is_stop: Callable[[int], bool]
    letters: Callable[[int], str]
    prompt: Sequence[int]
    """The tokens in the cache (the conversation so far), which the sampler has accepted already."""
    logits: Logits
    """Row 0 is of the last row that is complete: what follows the prompt, at first."""
    row: int
    """The row that the next token follows."""
    sampler: Sampler
    rng: np.random.Generator
    max_tokens: int
    clock: Callable[[], float] = no_clock
    alone: bool = True
    """Whether nothing of other slots ran since the last computation was asked for: only then is its time its own."""
    n_beside: int = 0
    """Answers of other slots that decode in the same turns."""
    tokens: list[int] = field(default_factory=list)
    """The answer so far, provisional tokens included."""
    stats: DecodingStats = field(default_factory=DecodingStats)

    @property
    def is_last(self) -> bool:
        """Whether the answer ends with its present last token: a stop token, enough tokens, a full window.

        The last token's row is not computed, so one more token could be chosen; nothing could follow it.
        """
        return len(self.tokens) >= self._most or self.is_stop(self.tokens[-1])

    @property
    def _most(self) -> int:
        """Tokens of the answer."""
        return min(self.max_tokens, self.n_ctx - len(self.prompt))

    @property
    def room(self) -> int:
        """Tokens that may be drafted after the present last one: as many as the window and the answer still take.

        None beside other answers: their rows fill the batch, and batches of ever new shapes need new graphs.
        """
        if self.n_beside:
            return 0
        return max(0, self._most - len(self.tokens) - 1)

    def add(self, chosen: ChosenToken, state: TokenState = TokenState.VERIFIED) -> TokenEvent:
        """The answer grows by a token."""
        self.tokens.append(chosen.token)
        self.sampler.accept(chosen.token)
        return self.event(len(self.tokens) - 1, chosen, state)

    def event(self, index: int, chosen: ChosenToken, state: TokenState) -> TokenEvent:
        """The event of the answer's token at `index`; a verified one also goes into the statistics."""
        logprobs: Logprobs = ()
        if state is TokenState.VERIFIED:
            logprobs = chosen.logprobs or self.sampler.logprobs(chosen.token)
            self.stats.tokens += 1
            self.stats.exit_layers += chosen.exit_layer
            self.stats.exits += chosen.exit_layer < self.n_layer
        stop = self.is_stop(chosen.token)
        return TokenEvent(
            index,
            chosen.token,
            chosen.exit_layer,
            state,
            chosen.probes,
            chosen.candidates,
            stop,
            chosen.drafter,
            logprobs,
        )

    def rewind_sampler(self, n: int) -> None:
        """The sampler has accepted the prompt and the answer's first n tokens, no more."""
        if self.sampler.remembers:
            self.sampler.rewind(self.prompt, self.tokens[:n])


def begin_decoding(
    engine: Engine,
    prompt: Sequence[int],
    sampler: Sampler,
    rng: np.random.Generator,
    max_tokens: int,
    clock: Callable[[], float] = no_clock,
) -> Decoding:
    """The state of a new answer. `engine` has prefilled `prompt`: logits row 0 is of its last token."""
    sampler.rewind(prompt)
    return Decoding(
        n_layer=engine.n_layer,
        n_ctx=engine.n_ctx,
        is_stop=engine.is_stop,
        letters=engine.letters,
        prompt=prompt,
        logits=engine,
        row=engine.tip,
        sampler=sampler,
        rng=rng,
        max_tokens=max_tokens,
        clock=clock,
    )
