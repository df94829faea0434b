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
from specee.app.engine.thought_splitter import Place, ThoughtSplitter
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.state import Decoding
from specee.predictors.decoding.stats import DecodingStats
from specee.predictors.types import Sampler


@dataclass(eq=False)
class Answer:
    """An answer under way. `began`: when it was asked for.

    `grammar`: what the answer must keep to, which its sampler does not know as long as it may think: it comes in two
    runs of the policy then.
    """

    request: Generate
    emit: Emit
    slot: Slot
    prompt: Prompt
    policy: Policy
    decision: PolicyDecision
    sampler: Sampler
    seed: int
    began: float
    grammar: str | None = None

    def __post_init__(self) -> None:
        backend, options = self.slot.backend, self.request.options
        room = backend.engine.n_ctx - len(self.prompt.tokens) - 1
        self.given = self.request.given[: max(0, room)]
        self.prefill = Prefill(self.slot.engine, self.prompt.tokens, self.slot.n_read, self.given)
        self.slot.n_read = self.n_prompt = len(self.prompt.tokens)
        self.n_thought_before = self.prompt.n_thought
        marks = backend.thinking.marks
        stop = (*options.stop, *backend.turn_stops)
        self.stream = AnswerStream(backend.piece, self.emit, self.began, stop, marks, options.think_tokens)
        self._begin_run(self.prompt.place, goes_on=self.prompt.goes_on)
        self.stream.replay(self.given, backend.info.n_layers)
        self.state: Decoding | None = None  # once it decodes
        self.n_runs = 0
        self.reused = 0
        self.thought_closed = False
        self._counted = DecodingStats()  # of earlier runs

    @property
    def id(self) -> int:
        """The request's."""
        return self.request.request

    @property
    def counted(self) -> DecodingStats:
        """Of all runs."""
        return self._counted if self.state is None else self._counted + self.state.stats

    @property
    def tokens_left(self) -> int:
        """That the answer may still have."""
        return self.request.options.max_tokens - len(self.stream.events)

    @property
    def must_go_on(self) -> bool:
        """Whether its run has ended where the answer has not: before what must keep to a grammar, or in a thought that
        is too long."""
        return self.stream.turn is not None or (self.grammar is not None and self._ended_by_itself)

    @property
    def _ended_by_itself(self) -> bool:
        events = self.stream.events
        return bool(events and events[-1].stop)

    def _begin_run(self, place: Place, *, goes_on: bool = False) -> None:
        waits = self.grammar is not None
        splitter = ThoughtSplitter(self.slot.backend.thinking.marked, place, goes_on=goes_on, stops=waits)
        self.stream.begin_run(splitter, turns_to_answer=waits)

    def take_up(self) -> None:
        """It waits no longer: says so, since from now on the request has to do with whatever the engine does."""
        self.emit(PromptProgress(0, self.prefill.total - self.prefill.done))

    def read_chunk(self, size: int) -> None:
        """A chunk of the prompt."""
        prefill = self.prefill
        prefill.read_chunk(size)
        if self.n_runs == 0:
            self.emit(PromptProgress(prefill.done - prefill.reused, prefill.total - prefill.reused))

    def start(self, state: Decoding) -> None:
        """The prompt is read; decoding begins."""
        self.state = state
        self.n_runs += 1
        if self.n_runs == 1:
            self.reused = min(self.prefill.reused, self.n_prompt)  # not those of its answer that were given
            reason, rates = self.decision.reason, (self.decision.dense_rate, self.decision.stock_rate)
            self.emit(Started(self.policy.name, reason, self.n_prompt, self.reused, self.seed, *rates))

    def go_on(self, sampler: Sampler) -> None:
        """Its next run, with this sampler, is that of the answer: behind its thought, which is ended if it has not."""
        assert self.state is not None
        self._counted, self.state = self.counted, None
        self.sampler, self.grammar = sampler, None
        self.prompt = self._prompt_of_answer()
        self._begin_run("answer")
        self.prefill = Prefill(self.slot.engine, self.prompt.tokens, self.slot.n_read)

    def _prompt_of_answer(self) -> Prompt:
        """With what was generated, as far as it stands, and what the template has between a thought and an answer."""
        stream, form = self.stream, self.slot.backend.thinking.form
        assert form is not None
        text, tokens = stream.whole
        if stream.turn in ("answers", None) and not stream.in_thought:
            stream.drop_run()
            return self._with_text(self.prompt, form.plain_opening)
        if stream.turn == "ended" and stream.left.strip():  # its last token has more than the end of the thought
            text = text.removesuffix(stream.left)
            tokens = self._tokens_behind(self.prompt, text)
        stream.keep_run()
        self.thought_closed = stream.turn == "thought"
        between = form.closing if stream.in_thought else form.after_end
        if not stream.in_thought:
            between = between.removeprefix(stream.left)
        return self._with_text(self.prompt.with_answer(text, tokens, has_hidden=stream.has_hidden), between)

    def _with_text(self, prompt: Prompt, text: str) -> Prompt:
        return prompt.with_answer(text, self._tokens_behind(prompt, text)) if text else prompt

    def _tokens_behind(self, prompt: Prompt, text: str) -> list[int]:
        backend = self.slot.backend
        return backend.tokenize(text, bos=False, is_rest=not prompt.text.endswith(tuple(backend.control_tokens)))

    def finish(self, *, cancelled: bool) -> Stats:
        """It is over: sends what is left of its text, and gives its figures."""
        self.stream.finish()
        if self.n_runs == 0:
            return self._stats(DecodingStats(), 0, "cancelled")
        stream = self.stream
        self.slot.previous = self.prompt.with_answer(*stream.whole, stream.said, has_hidden=stream.has_hidden)
        return self._stats(self.counted, self.reused, "cancelled" if cancelled else self._stop_reason())

    def _stop_reason(self) -> str:
        if self.stream.stopped or self._ended_by_itself:
            return "stop"
        return "length" if self.tokens_left <= 0 else "window"

    def _stats(self, counted: DecodingStats, reused: int, stop_reason: str) -> Stats:
        ended = time.perf_counter()
        stream, events = self.stream, self.stream.events
        first_at = stream.first_at if stream.first_at is not None else ended
        decoding = ended - first_at
        tokens = [event for event in events if not event.stop]
        n_timed = len(events) - len(self.given) - 1  # the first one follows from what was read
        return Stats(
            prompt_tokens=self.n_prompt,
            reused=reused,
            tokens=len(tokens),
            ttft_s=first_at - self.began,
            total_s=ended - self.began,
            tokens_per_second=n_timed / decoding if n_timed > 0 and decoding > 0 else 0.0,
            mean_exit_layer=sum(e.exit_layer for e in tokens) / len(tokens) if tokens else 0.0,
            n_layers=self.slot.backend.info.n_layers,
            policy=self.policy.name,
            policy_reason=describe(counted, self.decision.reason, self.slot.backend.info),
            stop_reason=stop_reason,
            seed=self.seed,
            dense_rate=self.decision.dense_rate,
            policy_stats=asdict(counted),
            thought_tokens=stream.thought_tokens,
            prompt_thought_tokens=self.n_thought_before,
            thought_seconds=max(0.0, stream.thought_ended_at - first_at) if stream.thought_ended_at else 0.0,
            thought_cut=stream.before_answer and stop_reason != "cancelled",
            thought_closed=self.thought_closed,
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
