"""A request as its client knows it: what has come of its answer, and how another engine goes on with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from specee.app.engine.protocol import (
    Cancel,
    ChatEvent,
    Done,
    Generate,
    ModelInfo,
    PromptProgress,
    Started,
    TokenEvents,
)
from specee.app.errors import AppError
from specee.app.options import PolicyChoice

if TYPE_CHECKING:
    from specee.app.engine.client import Event
    from specee.app.engine.link import Dispatcher


class Asked:
    """A request, from its beginning to its end. `cancel` may come from any thread."""

    def __init__(self, request: Generate) -> None:
        self.request = request
        self.engine: Dispatcher | None = None  # once it was asked
        self.may_be_repeated = True
        """Until the engine takes it up, or somebody wants it to end: another engine can answer it as well."""
        self._is_cancelled = False
        self._seed = request.options.sampling.seed
        self._tokens: list[tuple[int, int]] = []  # the verified ones that came, with their exit layers
        self._provisional: dict[int, ChatEvent] = {}  # those that are not, by their indices
        self._n_came = 0  # tokens of engines that were lost
        self._began = time.perf_counter()
        self._later = 0.0  # seconds until the engine that answers now was asked
        self._first_at = 0.0

    def cancel(self) -> None:
        self.may_be_repeated, self._is_cancelled = False, True
        if self.engine is not None:
            self.engine.send(Cancel(self.request.request))

    @property
    def can_go_on(self) -> bool:
        """Whether another engine can go on where this one was lost: an answer that comes in several runs (see
        engine/answer.py) is not only its tokens."""
        options = self.request.options
        in_runs = (options.grammar, options.json_schema, options.think_tokens) != (None, None, None)
        return not self._is_cancelled and not (self._tokens and in_runs)

    def go_on(self) -> Iterator[ChatEvent]:
        """Another engine is to go on behind the tokens that came; those that were not verified are taken back."""
        if self._provisional:
            yield replace(self._provisional[min(self._provisional)], state="rolled_back", text="")
            self._provisional.clear()
        options = self.request.options
        options = replace(options, sampling=replace(options.sampling, seed=self._seed))
        most = options.max_tokens - 1  # the last one ends the answer again
        given = tuple(token for token, _ in self._tokens[:most])
        self.request = replace(self.request, options=options, given=given)
        self._n_came, self._later = len(self._tokens), time.perf_counter() - self._began

    def fit(self, info: ModelInfo) -> None:
        """Without the device that was lost a policy may be impossible: then `auto`, which has the same text."""
        options = self.request.options
        try:
            info.check(options.policy)
        except AppError:
            if options.policy.is_lossless:
                self.request = replace(self.request, options=replace(options, policy=PolicyChoice("auto")))

    def passed_on(self, message: Event | TokenEvents) -> Iterator[Event]:
        """What the user is told of a message of the engine; of one that goes on, that it began is not told again."""
        match message:
            case TokenEvents():
                for event in message.events:
                    if not len(self.request.given) <= event.index < self._n_came:  # it came already
                        event = replace(event, t=event.t + self._later) if self._n_came else event
                        self._count(event)
                        yield event
            case Started() | PromptProgress() if self._n_came:
                pass
            case Done() if self._n_came:
                layers = [layer for _, layer in self._tokens]
                mean = sum(layers) / len(layers)
                yield Done(replace(message.stats, ttft_s=self._first_at, mean_exit_layer=mean))
            case Started():
                self._seed = message.seed
                yield message
            case _:
                yield message

    def _count(self, event: ChatEvent) -> None:
        if event.state == "provisional":
            self._provisional[event.index] = event
        elif event.state == "verified":
            self._provisional.pop(event.index, None)
        else:
            self._provisional = {i: one for i, one in self._provisional.items() if i < event.index}
        if event.state == "verified" and not event.stop and event.index == len(self._tokens):
            self._first_at = self._first_at or event.t
            self._tokens.append((event.token, event.exit_layer))
