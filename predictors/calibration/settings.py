"""What calibration needs from outside, and its parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

from specee.predictors.exits.lm_head import HeadEngine
from specee.predictors.exits.rules import DEFAULT_DRAFTERS
from specee.predictors.types import Engine, Floats, Sampler, Tokens

ProgressCallback = Callable[[str, float], None]  # what is being done, share done in [0, 1]


class CalibrationEngine(Engine, HeadEngine, Protocol):
    """An engine that also shows its insides."""

    def prefill(self, tokens: Sequence[int], on_chunk: Callable[[int, int], None] | None = None) -> int: ...

    def hidden(self, row: int) -> Floats:
        """Hidden state of a recent row at its depth: float32 [n_embd]."""
        ...

    def embedding_rows(self, tokens: Sequence[int] | Tokens) -> Floats:
        """Token embeddings: float32 [n, n_embd]."""
        ...


@dataclass(frozen=True, slots=True)
class CalibratedModel:
    """The model that is calibrated, as the app knows it."""

    name: str
    sha256: str
    encode: Callable[[str], list[int]]
    """A user's message -> the prompt's tokens, through the chat template."""
    make_sampler: Callable[[float, float], Sampler]
    """(temperature, repetition penalty) -> a sampler."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of calibration. `tokens` and `seconds` bound the recording, whichever comes first."""

    tokens: int = 24_000
    seconds: float = 1500.0
    answer_tokens: int = 192
    """The longest answer to one prompt."""
    seed: int = 0
    k: int = 4
    drafters: tuple[str, ...] = DEFAULT_DRAFTERS
    """What drafts the candidates, as in ExitRules; the last one must always give as many as it is asked for."""
    n_hidden: int = 512
    lens_rank: int = 0
    """0: the model's width, which is best (the states are not of low rank). Else a multiple of 32."""
    draft_rank: int = 160
    shortlist: int = 8192
    max_exit_layers: int = 8
    n_offline: int = 4
    target_agreement: float = 0.97
    ppl_limit: float = 1.045
    """How much exits may raise the perplexity of greedy text under the dense model: agreement counts wrong tokens, this
    also says how wrong they are."""
    tune_epochs: int = 3
    """Passes of distillation over the rows, for each lens; twice as many for the draft head."""


def candidate_exit_layers(n_layer: int) -> tuple[int, ...]:
    """Exit layers worth recording: eight or so over the upper quarter of the model, where most exits happen, and two
    below, which the surest tokens reach."""
    step = max(1, round(0.27 * n_layer / 8))
    upper = range(n_layer - step, round(0.72 * n_layer) - 1, -step)
    lower = (min(upper, default=n_layer) - 2 * step * i for i in (1, 2))
    return tuple(sorted(layer for layer in (*upper, *lower) if 0 < layer < n_layer)) or (n_layer - 1,)


def bundled_prompts() -> list[str]:
    """Our own calibration prompts."""
    text = resources.files(__package__).joinpath("prompts.jsonl").read_text("utf-8")
    return [str(json.loads(line)["text"]) for line in text.splitlines()]
