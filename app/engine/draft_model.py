"""The small model that drafts for a large one: which, whether it fits, and opening it at its first use."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specee.app import memory
from specee.app.engine.step_times import measure_steps
from specee.app.errors import AppError
from specee.app.formatting import size
from specee.app.options import NO_DRAFTER, LoadOptions
from specee.models import draft_model, gguf_header, model_structure, resolve
from specee.models.errors import ModelError

if TYPE_CHECKING:
    from specee.models.gguf_header import Header
    from specee.predictors.drafters.small_model import SmallModelGuesser

BEST = 8  # tokens of its distribution that are looked at


@dataclass(frozen=True)
class DraftFile:
    """A model file that fits the large model, and what it needs."""

    name: str
    path: str
    memory_bytes: int


def find(options: LoadOptions, target: Header, n_ctx: int) -> DraftFile | None:
    """What drafts for the model: what the user named, else what the registry pairs it with, where that is here.

    Raises errors with a title and a message where a named one is not here, does not fit, or needs too much memory.
    """
    if options.drafter == NO_DRAFTER:
        return None
    if options.drafter is not None:
        found = resolve.resolve(options.drafter)
        return _checked(found.name, found.path, target, n_ctx)
    pair = draft_model.paired(options.model)
    if pair is None or pair.path is None:
        return None
    try:
        return _checked(pair.name, pair.path, target, n_ctx)
    except (ModelError, AppError):
        return None  # nobody asked for it


def _checked(name: str, path: Any, target: Header, n_ctx: int) -> DraftFile:
    header = gguf_header.read_model(path)
    draft_model.check(target, header)
    needed = model_structure.read(header).memory(n_ctx)
    both, free = needed + model_structure.read(target).memory(n_ctx), memory.free_ram()
    if free is not None and both > free:
        raise AppError(
            "too little memory for the drafter",
            f"the model and {name} need {size(both)}, {size(free)} are free; "
            "take a smaller --ctx, a smaller drafter, or --drafter none",
        )
    return DraftFile(name, str(path), needed)


class DraftModel:
    """A draft model, opened when it is first used: not every policy drafts."""

    def __init__(self, file: DraftFile, *, n_ctx: int, threads: int) -> None:
        self.file = file
        self._n_ctx, self._threads = n_ctx, threads
        self._model: Any = None
        self._engine: Any = None
        self._sampler: Any = None
        self._times: dict[int, float] = {}

    def guesser(self, n_vocab: int) -> SmallModelGuesser | None:
        """What drafts for a model of so many tokens; None where this model cannot drop rejected tokens."""
        from specee.predictors.drafters.draft_engine import RowDraftEngine
        from specee.predictors.drafters.small_model import SmallModelGuesser

        if self._model is None:
            self._open()
        if len(self._times) < 2:
            return None
        engine = RowDraftEngine(self._engine, self._sampler)
        return SmallModelGuesser(engine, self._times, n_vocab, time.perf_counter)

    def _open(self) -> None:
        from specee.native import engine as native

        self._model = native.Model(self.file.path)
        n_ctx = min(self._n_ctx, self._model.n_ctx_train or self._n_ctx)
        self._engine = native.RowEngine(self._model, n_ctx=n_ctx, n_threads=self._threads)
        self._sampler = native.Sampler(self._model, temperature=1.0, top_k=BEST)
        self._times = measure_steps(self._engine)

    def close(self) -> None:
        for part in (self._sampler, self._engine, self._model):
            if part is not None:
                part.close()
