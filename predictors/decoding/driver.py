"""Runs a policy on an engine: the one place where work is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.state import Decoding
from specee.predictors.types import Engine, TokenEvent


def run(policy: Policy, engine: Engine, state: Decoding) -> Iterator[TokenEvent]:
    """The events of one answer. However it ends, rows that were not committed are dropped."""
    decoding = policy.decode(state)
    result: Any = None
    try:
        while True:
            try:
                item = decoding.send(result)
            except StopIteration:
                return
            if isinstance(item, TokenEvent):
                result = None
                yield item
            else:
                result = item.run(engine)
    finally:
        decoding.close()
        if engine.n_in_flight:
            engine.roll_back(engine.length)
