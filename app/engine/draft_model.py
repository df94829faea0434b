"""The small model that drafts for a large one, opened at its first use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from specee.app.engine.draft_file import DraftFile
from specee.app.engine.step_times import measure_steps
from specee.app.errors import AppError, as_app_error

if TYPE_CHECKING:
    from specee.predictors.drafters.draft_engine import DraftEngine
    from specee.predictors.drafters.small_model import SmallModelGuesser

BEST = 8  # tokens of its distribution that are looked at


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

    def guesser(self, is_wanted: bool = True) -> SmallModelGuesser | None:
        """What drafts for the large model in the next answer; None where this model cannot drop rejected tokens, or is
        not missed, or not wanted: then a prompt is not read again for states that a head would need.

        Raises AppError where it is, and cannot be opened.
        """
        from specee.native.errors import NativeError
        from specee.predictors.drafters.small_model import SmallModelGuesser

        self.need_states(is_wanted)
        if not is_wanted:
            return None
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

    def need_states(self, is_wanted: bool) -> None:
        """Whether the next prompt's tokens that have no states are read again, where this is a head."""
        if self.file.layers:
            self._target.needs_states = is_wanted

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
        engine: Any = native.RowEngine(model, n_ctx=n_ctx, n_threads=target.n_threads, kv_type=target.kv_type)
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
