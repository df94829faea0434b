"""Runs one policy on an engine that has nothing else to do."""

from __future__ import annotations

from collections.abc import Iterator

from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.scheduler import Scheduler
from specee.predictors.decoding.state import Decoding
from specee.predictors.types import Engine, TokenEvent


def run(policy: Policy, engine: Engine, state: Decoding) -> Iterator[TokenEvent]:
    """The events of one answer. However it ends, rows that were not committed are dropped."""
    scheduler = Scheduler()
    running = scheduler.start(policy, engine, state)
    try:
        while not running.ended:
            for _, event in scheduler.turn():
                yield event
    finally:
        scheduler.stop(running)
    if running.error is not None:
        raise running.error
