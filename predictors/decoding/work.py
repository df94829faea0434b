"""What a policy asks for. A policy yields work and is sent the result; it never calls the engine itself.

The scheduler does it: rows that several slots want advanced alike go into one batch, the rest is done slot by slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from specee.predictors.types import Engine, ExitResult, Logits

Range = tuple[int, int, bool]
"""The layers that rows are to go through, begin and end, and whether logits are wanted."""


class Work(Protocol):
    """A piece of work."""

    is_computation: ClassVar[bool]
    """Whether the model runs. If not, logits that were made before can still be read."""

    def run(self, engine: Engine) -> Any:
        """Do it; the result is what the policy is sent."""
        ...


@dataclass(frozen=True, slots=True)
class Forward:
    """A token after the tip, through all layers and committed: a step of dense decoding. The result is its row."""

    is_computation: ClassVar[bool] = True
    n_rows: ClassVar[int] = 1
    token: int

    def run(self, engine: Engine) -> int:
        return engine.forward(self.token)

    def layers(self, engine: Engine) -> Range:
        return 0, engine.n_layer, True

    def begin_batch(self, engine: Engine) -> tuple[int, ...]:
        return (engine.append(self.token),)

    def end_batch(self, engine: Engine, rows: tuple[int, ...]) -> int:
        engine.commit(rows[0])
        return rows[0]


@dataclass(frozen=True, slots=True)
class Append:
    """A new row of `token` after the row `parent`. The result is its id."""

    is_computation: ClassVar[bool] = False
    token: int
    parent: int

    def run(self, engine: Engine) -> int:
        return engine.append(self.token, self.parent)


@dataclass(frozen=True, slots=True)
class Advance:
    """Rows of equal depth to depth `end`, in one batch. The result has their logits, if wanted, in their order."""

    is_computation: ClassVar[bool] = True
    rows: tuple[int, ...]
    end: int
    logits: bool = False

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def run(self, engine: Engine) -> Logits:
        engine.advance(self.rows, self.end, self.logits)
        return engine

    def layers(self, engine: Engine) -> Range:
        return engine.depth(self.rows[0]), self.end, self.logits

    def begin_batch(self, engine: Engine) -> tuple[int, ...]:
        return self.rows

    def end_batch(self, engine: Engine, rows: tuple[int, ...]) -> Logits:
        return engine


@dataclass(frozen=True, slots=True)
class AdvanceStages:
    """Batches of rows, each with the depth where it goes, at once: the last layers first. See `Advance`."""

    is_computation: ClassVar[bool] = True
    batches: tuple[tuple[tuple[int, ...], int], ...]
    logits: bool = False

    def run(self, engine: Engine) -> Logits:
        engine.advance_stages(self.batches, self.logits)
        return engine


@dataclass(frozen=True, slots=True)
class RunToExit:
    """The last row from exit layer to exit layer until its score is above the threshold. See `Engine.run_to_exit`."""

    is_computation: ClassVar[bool] = True
    row: int
    layers: tuple[int, ...]
    k: int
    candidates: tuple[int, ...]
    threshold: float

    def run(self, engine: Engine) -> ExitResult:
        return engine.run_to_exit(self.row, self.layers, self.k, self.candidates, self.threshold)


@dataclass(frozen=True, slots=True)
class Complete:
    """The deferred layers of all rows in flight. The result has their logits, if wanted, oldest row first."""

    is_computation: ClassVar[bool] = True
    logits: bool = False

    def run(self, engine: Engine) -> Logits:
        engine.complete(self.logits)
        return engine


@dataclass(frozen=True, slots=True)
class PropagateKV:
    """K and V of the row's deferred layers from its present hidden state."""

    is_computation: ClassVar[bool] = True
    row: int

    def run(self, engine: Engine) -> None:
        engine.propagate_kv(self.row)


@dataclass(frozen=True, slots=True)
class LensHead:
    """The LM head on the row's hidden state, seen through the lens of its depth. The result has its logits."""

    is_computation: ClassVar[bool] = True
    row: int

    def run(self, engine: Engine) -> Logits:
        engine.lens_head(self.row)
        return engine


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """The exit predictor at the row's depth. The result is its score for the candidates, in [0, 1]."""

    is_computation: ClassVar[bool] = False
    row: int
    candidates: tuple[int, ...]

    def run(self, engine: Engine) -> float:
        return engine.probe(self.row, np.array(self.candidates, np.int32))


@dataclass(frozen=True, slots=True)
class Commit:
    """The path to `row` becomes the sequence; other rows in flight are dropped, or with `keep_rest` stay."""

    is_computation: ClassVar[bool] = False
    row: int
    keep_rest: bool = False

    def run(self, engine: Engine) -> None:
        engine.commit(self.row, keep_rest=self.keep_rest)


RowWork = Forward | Advance
"""Computations of rows, which go into one batch with those of other slots for the same `layers`.

`begin_batch` gives the rows, `end_batch` what the policy is sent.
"""
