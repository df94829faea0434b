"""The small model that drafts for a large one: which, whether it fits, and opening it at its first use."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from specee.app import memory
from specee.app.engine.step_times import measure_steps
from specee.app.errors import AppError, as_app_error
from specee.app.formatting import size
from specee.app.options import NO_DRAFTER, LoadOptions
from specee.models import draft_model, gguf_header, model_structure, resolve
from specee.models.errors import ModelError

if TYPE_CHECKING:
    from specee.models.gguf_header import Header
    from specee.predictors.drafters.draft_engine import DraftEngine
    from specee.predictors.drafters.small_model import SmallModelGuesser

STATE_BYTES = 2  # float16
BEST = 8  # tokens of its distribution that are looked at


@dataclass(frozen=True)
class DraftFile:
    """A file that fits the large model: a small model, or an EAGLE-3 head."""

    name: str
    path: str
    layers: tuple[int, ...] = ()
    """Of the large model: what an EAGLE-3 head reads the states of."""
    is_wanted: bool = True
    """Whether the user named it: else it is not missed."""


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
        return replace(_checked(pair.name, pair.path, target, n_ctx), is_wanted=False)
    except (ModelError, AppError):
        return None  # nobody asked for it


def check_drafter(options: LoadOptions) -> None:
    """Raises what `find` raises for a named drafter that is not here or does not fit the model."""
    if options.drafter not in (None, NO_DRAFTER):
        found = resolve.resolve(options.drafter)
        target = gguf_header.read_model(resolve.resolve(options.model).path)
        _check(found.name, target, gguf_header.read_model(found.path))


def _check(name: str, target: Header, header: Header) -> None:
    draft_model.check(target, header)
    if draft_model.target_layers(header) and (why := _no_ranges(target)):
        raise AppError(
            "the drafter does not fit", f"{name} reads states of layers, and {why}; take a small whole model"
        )


def _checked(name: str, path: Any, target: Header, n_ctx: int) -> DraftFile:
    header = gguf_header.read_model(path)
    _check(name, target, header)
    layers = draft_model.target_layers(header)
    large = model_structure.read(target)
    states = n_ctx * len(layers) * large.width * STATE_BYTES
    both, free = model_structure.read(header).memory(n_ctx) + states + large.memory(n_ctx), memory.free_ram()
    if free is not None and both > free:
        raise AppError(
            "too little memory for the drafter",
            f"the model and {name} need {size(both)}, {size(free)} are free; "
            "take a smaller --ctx, a smaller drafter, or --drafter none",
        )
    return DraftFile(name, str(path), layers)


def _no_ranges(target: Header) -> str | None:
    from specee.native import library

    structure = model_structure.read(target)
    return library.model_unsupported(structure.arch, bool(structure.sliding_window), structure.width)


class DraftModel:
    """A draft model, opened when it is first used: not every policy drafts."""

    def __init__(self, file: DraftFile, target: Any) -> None:
        """`target`: the large model's engine; for an EAGLE-3 head a LayerStatesEngine of its layers."""
        self.file = file
        self._target = target
        self._parts: list[Any] = []  # opened one after the other
        self._engine: DraftEngine | None = None
        self._is_refused = False  # for good
        self._times: dict[int, float] = {}

    def guesser(self) -> SmallModelGuesser | None:
        """What drafts for the large model; None where this model cannot drop rejected tokens, or is not missed.

        Raises AppError where it is, and cannot be opened.
        """
        from specee.native.errors import NativeError
        from specee.predictors.drafters.small_model import SmallModelGuesser

        if not self._parts and not self._is_refused:
            try:
                self._open()
            except NativeError as error:
                self._engine, self._is_refused = None, not self.file.is_wanted
                self.close()
                if self.file.is_wanted:
                    told = as_app_error(error)
                    line = f"{self.file.path}: {told.message}; --drafter none does without"
                    raise AppError(f"the drafter fails: {told.title}", line, told.exit_code) from error
        if self._engine is None:
            return None
        name = "eagle3" if self.file.layers else "model"
        return SmallModelGuesser(self._engine, self._times, self._target.n_vocab, time.perf_counter, name)

    def _open(self) -> None:
        from specee.native import eagle_head
        from specee.native import engine as native
        from specee.predictors.drafters.draft_engine import RowDraftEngine

        target, open_part = self._target, self._parts.append
        open_part(model := native.Model(self.file.path))
        if self.file.layers:
            open_part(head := eagle_head.EagleHead(model, target))
            self._engine, self._times = head, head.step_times()
            return
        n_ctx = min(target.n_ctx, model.n_ctx_train or target.n_ctx)
        engine: Any = native.RowEngine(model, n_ctx=n_ctx, n_threads=target.n_threads)
        sampler: Any = native.Sampler(model, temperature=1.0, top_k=BEST)
        self._parts += [engine, sampler]
        steps = measure_steps(engine)
        self._times = steps.seconds
        if steps.refusal is None:
            self._engine = RowDraftEngine(engine, sampler)

    def close(self) -> None:
        """Before the large model's engine."""
        while self._parts:
            self._parts.pop().close()
