"""Conversations in the slots of an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from specee.predictors.training.settings import HalfFloats, Slot, TrainingEngine
from specee.predictors.types import AdvanceTogether, Sampler


class EngineSlot:
    """A slot of the engine, and the final states that its tokens were chosen from."""

    def __init__(self, engine: TrainingEngine, sampler: Callable[[float, float], Sampler]) -> None:
        self.n_ctx = engine.n_ctx
        self.engine, self._sampler = engine, sampler
        self._final = np.empty((engine.n_ctx, engine.n_embd), np.float32)  # unused pages take no memory

    @property
    def tokens(self) -> list[int]:
        return self.engine.tokens

    def roll_back(self, length: int) -> None:
        self.engine.roll_back(length)

    def best(self) -> int:
        return self.engine.greedy(0, self._sampler(0.0, 1.0))

    def draw(self, temperature: float, top_p: float, chance: float) -> int:
        tokens, probs = self.engine.distribution(0, self._sampler(temperature, top_p))
        at = int(np.searchsorted(np.cumsum(probs), chance * float(probs.sum())))
        return int(tokens[min(at, len(tokens) - 1)])

    def states(self, begin: int, end: int) -> HalfFloats:
        return self.engine.states(begin, end).astype(np.float16)

    def final(self, begin: int, end: int) -> HalfFloats:
        found = self._final[begin:end]
        if self.engine.head_shape()[0]:
            found = found - found.mean(axis=1, keepdims=True)
        scale = np.sqrt(np.mean(found * found, axis=1, keepdims=True) + 1e-12)
        normalised: HalfFloats = (found / scale).astype(np.float16)
        return normalised

    def keep_final(self) -> None:
        """Of the last token."""
        self._final[self.engine.length - 1] = self.engine.hidden(self.engine.tip)


class EngineSlots:
    """All slots of an engine, which read in one batch."""

    def __init__(
        self,
        engines: Sequence[TrainingEngine],
        advance_together: AdvanceTogether,
        make_sampler: Callable[[float, float], Sampler],
    ) -> None:
        """`make_sampler`: (temperature, top-p) -> a sampler without penalties."""
        self._advance_together, self._make_sampler = advance_together, make_sampler
        self._samplers: dict[tuple[float, float], Sampler] = {}
        self.slots: list[Slot] = [EngineSlot(engine, self._sampler) for engine in engines]

    def _sampler(self, temperature: float, top_p: float) -> Sampler:
        how = (temperature, top_p)
        if how not in self._samplers:
            self._samplers[how] = self._make_sampler(*how)
        return self._samplers[how]

    def read(self, batches: Sequence[tuple[Slot, list[int]]]) -> None:
        rows = []
        for slot, tokens in batches:
            assert isinstance(slot, EngineSlot)
            if len(tokens) > 1:  # no logits of other slots are wanted any more
                slot.engine.prefill([*slot.engine.tokens, *tokens[:-1]])
            rows.append((slot.engine, (slot.engine.append(tokens[-1]),)))
        self._advance_together(rows, rows[0][0].n_layer, logits=True)
        for (slot, _), (engine, (row,)) in zip(batches, rows, strict=True):
            engine.commit(row)
            assert isinstance(slot, EngineSlot)
            slot.keep_final()

    def close(self) -> None:
        for sampler in self._samplers.values():
            sampler.close()
