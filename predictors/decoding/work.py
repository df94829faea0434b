"""What a policy asks for. A policy yields work and is sent the result; it never calls the engine itself.

The driver runs one piece after the other, for one slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from specee.predictors.types import Engine, ExitResult, Logits


class Work(Protocol):
    """A piece of work."""

    def run(self, engine: Engine) -> Any:
        """Do it; the result is what the policy is sent."""
        ...


@dataclass(frozen=True, slots=True)
class Forward:
    """A token after the tip, through all layers and committed: a step of dense decoding. The result is its row."""

    token: int

    def run(self, engine: Engine) -> int:
        return engine.forward(self.token)


@dataclass(frozen=True, slots=True)
class Append:
    """A new row of `token` after the row `parent`. The result is its id."""

    token: int
    parent: int

    def run(self, engine: Engine) -> int:
        return engine.append(self.token, self.parent)


@dataclass(frozen=True, slots=True)
class Advance:
    """Rows of equal depth to depth `end`, in one batch. The result has their logits, if wanted, in their order."""

    rows: tuple[int, ...]
    end: int
    logits: bool = False

    def run(self, engine: Engine) -> Logits:
        engine.advance(self.rows, self.end, self.logits)
        return engine


@dataclass(frozen=True, slots=True)
class RunToExit:
    """The last row from exit layer to exit layer until its score is above the threshold. See `Engine.run_to_exit`."""

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

    logits: bool = False

    def run(self, engine: Engine) -> Logits:
        engine.complete(self.logits)
        return engine


@dataclass(frozen=True, slots=True)
class PropagateKV:
    """K and V of the row's deferred layers from its present hidden state."""

    row: int

    def run(self, engine: Engine) -> None:
        engine.propagate_kv(self.row)


@dataclass(frozen=True, slots=True)
class LensHead:
    """The LM head on the row's hidden state, seen through the lens of its depth. The result has its logits."""

    row: int

    def run(self, engine: Engine) -> Logits:
        engine.lens_head(self.row)
        return engine


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """The exit predictor at the row's depth. The result is its score for the candidates, in [0, 1]."""

    row: int
    candidates: tuple[int, ...]

    def run(self, engine: Engine) -> float:
        return engine.probe(self.row, np.array(self.candidates, np.int32))


@dataclass(frozen=True, slots=True)
class Commit:
    """The path to `row` becomes the sequence; other rows in flight are dropped."""

    row: int

    def run(self, engine: Engine) -> None:
        engine.commit(self.row)
