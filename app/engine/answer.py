"""One request while a slot answers it: what was decided, its prompt, its events and its figures."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from specee.app.engine.answer_stream import AnswerStream
from specee.app.engine.policy_chooser import PolicyDecision, describe
from specee.app.engine.prefill import Prefill
from specee.app.engine.prompt import Prompt
from specee.app.engine.protocol import Emit, Generate, PromptProgress, Started, Stats
from specee.app.engine.slot import Slot
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.state import Decoding
from specee.predictors.decoding.stats import DecodingStats
from specee.predictors.types import Sampler


@dataclass(eq=False)
class Answer:
    """An answer under way. `began`: when it was asked for."""

    request: Generate
    emit: Emit
    slot: Slot
    prompt: Prompt
    policy: Policy
    decision: PolicyDecision
    sampler: Sampler
    seed: int
    began: float

    def __post_init__(self) -> None:
        self.prefill = Prefill(self.slot.engine, self.prompt.tokens, self.slot.n_read)
        self.slot.n_read = self.prefill.total
        self.stream = AnswerStream(self.slot.backend.piece, self.emit, self.began, self.request.options.stop)
        self.state: Decoding | None = None  # once it decodes

    @property
    def id(self) -> int:
        """The request's."""
        return self.request.request

    def take_up(self) -> None:
        """It waits no longer: says so, since from now on the request has to do with whatever the engine does."""
        self.emit(PromptProgress(0, self.prefill.total - self.prefill.done))

    def read_chunk(self, size: int) -> None:
        """A chunk of the prompt."""
        prefill = self.prefill
        prefill.read_chunk(size)
        self.emit(PromptProgress(prefill.done - prefill.reused, prefill.total - prefill.reused))

    def start(self, state: Decoding) -> None:
        """The prompt is read; decoding begins."""
        self.state = state
        reason, rate = self.decision.reason, self.decision.dense_rate
        self.emit(Started(self.policy.name, reason, self.prefill.total, self.prefill.reused, self.seed, rate))

    def finish(self, *, cancelled: bool) -> Stats:
        """It is over: sends what is left of its text, and gives its figures."""
        self.stream.finish()
        if self.state is None:
            return self._stats(DecodingStats(), 0, "cancelled")
        self.slot.previous = self.prompt.with_answer(*self.stream.whole)
        return self._stats(self.state.stats, self.prefill.reused, "cancelled" if cancelled else self._stop_reason())

    def _stop_reason(self) -> str:
        events = self.stream.events
        if self.stream.stopped or (events and events[-1].stop):
            return "stop"
        return "length" if len(events) >= self.request.options.max_tokens else "window"

    def _stats(self, counted: DecodingStats, reused: int, stop_reason: str) -> Stats:
        ended = time.perf_counter()
        events = self.stream.events
        first_at = self.stream.first_at if self.stream.first_at is not None else ended
        decoding = ended - first_at
        tokens = [event for event in events if not event.stop]
        return Stats(
            prompt_tokens=self.prefill.total,
            reused=reused,
            tokens=len(tokens),
            ttft_s=first_at - self.began,
            total_s=ended - self.began,
            tokens_per_second=(len(events) - 1) / decoding if len(events) > 1 and decoding > 0 else 0.0,
            mean_exit_layer=sum(e.exit_layer for e in tokens) / len(tokens) if tokens else 0.0,
            n_layers=self.slot.backend.info.n_layers,
            policy=self.policy.name,
            policy_reason=describe(counted, self.decision.reason, self.slot.backend.info),
            stop_reason=stop_reason,
            seed=self.seed,
            dense_rate=self.decision.dense_rate,
            policy_stats=asdict(counted),
        )


def stats_of_none(request: Generate, n_layers: int, began: float) -> Stats:
    """The figures of a request that was cancelled while it waited for a slot."""
    waited, chosen = time.perf_counter() - began, request.options
    return Stats(
        prompt_tokens=0,
        reused=0,
        tokens=0,
        ttft_s=waited,
        total_s=waited,
        tokens_per_second=0.0,
        mean_exit_layer=0.0,
        n_layers=n_layers,
        policy=chosen.policy.name,
        policy_reason="cancelled before it began",
        stop_reason="cancelled",
        seed=chosen.sampling.seed or 0,
    )
