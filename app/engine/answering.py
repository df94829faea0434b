"""Answers requests with a loaded model: prompt, prefill, policy, tokens, figures. Runs in the engine process."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass

from specee.app.engine.answer_stream import AnswerStream
from specee.app.engine.backend import Backend
from specee.app.engine.cancellation import Cancellation
from specee.app.engine.decode import decode
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser, PolicyDecision, describe
from specee.app.engine.prompt import Prompt, make_prompt
from specee.app.engine.protocol import Done, Emit, Generate, PromptProgress, Started, Stats
from specee.app.engine.thread_limit import limit_threads
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.options import ChatOptions, PolicyChoice
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.stats import DecodingStats
from specee.predictors.types import TokenEvent


@dataclass(frozen=True)
class _Plan:
    """What was decided before the first token."""

    options: ChatOptions
    tokens: list[int]
    policy: Policy
    decision: PolicyDecision
    seed: int
    began: float

    @property
    def prompt_tokens(self) -> int:
        return len(self.tokens)


class Answerer:
    """One loaded model and the cache of its chat."""

    def __init__(self, backend: Backend, measurements: Measurements) -> None:
        self.backend = backend
        self.cancellation = Cancellation(backend.engine.cancel, backend.engine.resume)
        self._measurements, self._chooser = measurements, PolicyChooser(measurements)
        self._policies: dict[PolicyChoice, Policy] = {}
        limit_threads(backend, measurements, measure=False)
        self._previous: Prompt | None = None  # the last one, with its answer

    def generate(self, request: Generate, emit: Emit) -> None:
        """Answers one request; emits Started, TokenEvents..., Done. Raises errors with a title and a message."""
        try:
            self._generate(request, emit)
        except BaseException:
            self._previous = None
            self.backend.engine.roll_back(0)  # whatever state the failure left
            raise
        finally:
            self.cancellation.forget(request.request)
        try:
            limit_threads(self.backend, self._measurements, measure=True)
        except Exception:
            traceback.print_exc()  # to the log: the answer is out, and an error now would be the next one's

    def _generate(self, request: Generate, emit: Emit) -> None:
        began = time.perf_counter()
        prompt = self._prompt(request)
        sampling = request.options.sampling
        decision = self._chooser.decide(self.backend, request.options.policy)
        policy = self._policy(decision.choice)
        if sum(m.role == "user" for m in request.messages) <= 1:
            policy.reset()
        seed = sampling.seed
        plan = _Plan(request.options, prompt.tokens, policy, decision, _random_seed() if seed is None else seed, began)
        reused = self._prefill(request.request, prompt.tokens, emit)
        answer = AnswerStream(self.backend.piece, emit, began)
        if reused is None:
            emit(Done(self._stats(plan, answer, DecodingStats(), 0, "cancelled")))
            return
        emit(Started(policy.name, decision.reason, plan.prompt_tokens, reused, plan.seed, decision.dense_rate))
        options = plan.options
        state, events = decode(self.backend, policy, plan.tokens, options.sampling, plan.seed, options.max_tokens)
        cancelled = self._read(request.request, events, answer)
        answer.finish()
        self._chooser.learn(self.backend, state.stats)
        self._previous = prompt.with_answer(answer.text, answer.token_ids)
        reason = "cancelled" if cancelled else self._stop_reason(plan, answer)
        emit(Done(self._stats(plan, answer, state.stats, reused, reason)))

    def _read(self, request: int, events: Iterator[TokenEvent], answer: AnswerStream) -> bool:
        """Reads the events to their end; True when the request was cancelled on the way."""
        with closing(events):  # type: ignore[type-var]
            for event in events:
                answer.add(event)
                if self.cancellation.is_cancelled(request):
                    return True
        return False

    # ---- the prompt ------------------------------------------------------------------------------------------------

    def _prompt(self, request: Generate) -> Prompt:
        """The chat as tokens; those of the last answer are kept where it goes on from there."""
        prompt = make_prompt(
            self.backend, request.messages, continue_answer=request.continue_answer, previous=self._previous
        )
        if len(prompt.tokens) >= self.backend.engine.n_ctx:
            raise AppError(
                "prompt too long",
                f"it has {len(prompt.tokens)} tokens, the context window holds {self.backend.engine.n_ctx}; "
                "shorten it, begin a new chat, or give a larger --ctx",
                PROMPT_TOO_LONG,
            )
        return prompt

    def _prefill(self, request: int, tokens: list[int], emit: Emit) -> int | None:
        """Reads the prompt; returns how many tokens were in the cache already, None when cancelled."""
        try:
            with self.cancellation.interruptible(request):
                reused = self.backend.engine.prefill(tokens, lambda done, total: emit(PromptProgress(done, total)))
        except Exception:
            if not self.cancellation.is_cancelled(request):
                raise
            return None  # the engine keeps what was read before
        return None if self.cancellation.is_cancelled(request) else reused

    # ---- policy and figures ----------------------------------------------------------------------------------------

    def _policy(self, choice: PolicyChoice) -> Policy:
        """Policies last as long as the model: they remember the exits and the drafts of the last tokens."""
        if choice not in self._policies:
            self._policies[choice] = self._chooser.build_policy(self.backend, choice)
        return self._policies[choice]

    @staticmethod
    def _stop_reason(plan: _Plan, answer: AnswerStream) -> str:
        if answer.events and answer.events[-1].stop:
            return "stop"
        return "length" if len(answer.events) >= plan.options.max_tokens else "window"

    def _stats(self, plan: _Plan, answer: AnswerStream, counted: DecodingStats, reused: int, stop_reason: str) -> Stats:
        ended = time.perf_counter()
        events = answer.events
        first_at = answer.first_at if answer.first_at is not None else ended
        decoding = ended - first_at
        tokens = [event for event in events if not event.stop]
        return Stats(
            prompt_tokens=plan.prompt_tokens,
            reused=reused,
            tokens=len(tokens),
            ttft_s=first_at - plan.began,
            total_s=ended - plan.began,
            tokens_per_second=(len(events) - 1) / decoding if len(events) > 1 and decoding > 0 else 0.0,
            mean_exit_layer=sum(e.exit_layer for e in tokens) / len(tokens) if tokens else 0.0,
            n_layers=self.backend.info.n_layers,
            policy=plan.policy.name,
            policy_reason=describe(counted, plan.decision.reason),
            stop_reason=stop_reason,
            seed=plan.seed,
            dense_rate=plan.decision.dense_rate,
            policy_stats=asdict(counted),
        )


def _random_seed() -> int:
    return random.SystemRandom().randrange(2**31)
