"""Runs policies in the slots of one engine: the one place where work is done.

Continuous batching in turns: in each, every decoding gets the computation that it waits for. Rows that several slots
want advanced alike go into one batch. A decoding reads the logits of its computation before the next one is done, which
overwrites them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.state import Decoding
from specee.predictors.decoding.work import Range, RowWork, Work
from specee.predictors.types import AdvanceTogether, Engine, TokenEvent


class Running:
    """A decoding in a slot. Made by `Scheduler.start`."""

    __slots__ = ("_items", "ended", "engine", "error", "state", "work")

    def __init__(self, policy: Policy, engine: Engine, state: Decoding) -> None:
        self.engine, self.state = engine, state
        self.ended = False
        self.error: Exception | None = None
        """What it failed with."""
        self.work: Work | None = None
        """The computation that it waits for; None before its beginning, and after its end."""
        self._items = policy.decode(state)

    def resume(self, result: Any) -> Iterator[TokenEvent]:
        """On with the result of its work, to the next computation; without one it has ended."""
        self.work = None
        send = self._items.send
        while True:
            try:
                item = send(result)
            except StopIteration:
                return
            if isinstance(item, TokenEvent):
                result = None
                yield item
            elif item.is_computation:
                self.work = item
                return
            else:
                result = item.run(self.engine)

    def close(self) -> None:
        """Rows that were not committed are dropped."""
        self.ended, self.work = True, None
        self._items.close()
        if self.engine.n_in_flight:
            self.engine.roll_back(self.engine.length)


class Scheduler:
    """Decodings that run side by side, each in a slot of its own; one alone needs no `advance_together`."""

    def __init__(self, advance_together: AdvanceTogether | None = None) -> None:
        self._advance_together = advance_together
        self._running: list[Running] = []
        self._alone = True  # in the last turn

    def start(self, policy: Policy, engine: Engine, state: Decoding) -> Running:
        """The answer of a slot that was prefilled just now: it begins in the next turn, with these logits."""
        running = Running(policy, engine, state)
        self._running.append(running)
        return running

    def stop(self, running: Running) -> None:
        """Ends it between two turns, if it has not ended."""
        if not running.ended:
            self._end(running)

    def turn(self, *, alone: bool = True) -> Iterator[tuple[Running, TokenEvent]]:
        """A computation for each decoding; yields their events.

        `alone`: since the last turn the engine has done nothing else. A computation that fails ends those that it was
        for, with an `error`.
        """
        for running in [r for r in self._running if r.work is None]:
            yield from self._resume(running, None)
        alone = alone and len(self._running) == 1
        for running in self._running:
            running.state.alone = alone and self._alone
            running.state.n_beside = len(self._running) - 1
        self._alone = alone
        for batch in self._batches():
            for running, result in self._compute(batch):
                yield from self._resume(running, result)

    def _resume(self, running: Running, result: Any) -> Iterator[tuple[Running, TokenEvent]]:
        try:
            for event in running.resume(result):
                yield running, event
        except Exception as error:
            self._end(running, error)
            return
        if running.work is None:
            self._end(running)

    def _end(self, running: Running, error: Exception | None = None) -> None:
        self._running.remove(running)
        running.error = error
        try:
            running.close()
        except Exception as failure:
            running.error = error or failure

    def _batches(self) -> list[list[Running]]:
        """Who is computed together: rows of the same range of layers, as many as get equal bits."""
        if len(self._running) == 1:
            return [self._running.copy()]
        batches: list[list[Running]] = []
        filling: dict[Range, tuple[list[Running], int]] = {}  # the last batch of a range, and its rows
        for running in self._running:
            work, engine = running.work, running.engine
            if not isinstance(work, RowWork):
                batches.append([running])
                continue
            layers = work.layers(engine)
            batch, n_rows = filling.get(layers, ([], 0))
            if n_rows == 0 or n_rows + work.n_rows > engine.max_equal_rows:
                batch, n_rows = [], 0
                batches.append(batch)
            batch.append(running)
            filling[layers] = batch, n_rows + work.n_rows
        return batches

    def _compute(self, batch: list[Running]) -> list[tuple[Running, Any]]:
        """Each with its result; those that failed have ended."""
        if len(batch) == 1:
            running = batch[0]
            assert running.work is not None
            try:
                return [(running, running.work.run(running.engine))]
            except Exception as error:
                self._end(running, error)
                return []
        begun: list[tuple[Running, RowWork, tuple[int, ...]]] = []
        for running in batch:
            work = running.work
            assert isinstance(work, RowWork)
            try:
                _, end, logits = work.layers(running.engine)
                begun.append((running, work, work.begin_batch(running.engine)))
            except Exception as error:  # no place for its row
                self._end(running, error)
        try:
            if begun:
                rows = [(running.engine, of_slot) for running, _, of_slot in begun]
                assert self._advance_together is not None
                self._advance_together(rows, end, logits)
            return [(running, work.end_batch(running.engine, of_slot)) for running, work, of_slot in begun]
        except Exception as error:
            for running, _, _ in begun:
                self._end(running, error)
            return []
