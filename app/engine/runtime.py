"""Answers requests with a loaded model: prompt, prefill, policy, tokens, figures. Runs in the engine process."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass

import numpy as np

from specee.app.engine.answer_stream import Answer
from specee.app.engine.auto_policy import Tuner, Verdict
from specee.app.engine.cancellation import Cancellation
from specee.app.engine.loading import Backend
from specee.app.engine.protocol import Done, Generate, PromptProgress, Started, Stats
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.options import ChatOptions, PolicyChoice
from specee.predictors.decoding import Policy

Emit = Callable[[object], None]


@dataclass(frozen=True)
class _Plan:
    """What was decided before the first token."""

    options: ChatOptions
    tokens: list[int]
    policy: Policy
    verdict: Verdict
    seed: int
    began: float

    @property
    def prompt_tokens(self) -> int:
        return len(self.tokens)


class Runtime:
    """One loaded model and the cache of its conversation."""

    def __init__(self, backend: Backend, tuner: Tuner) -> None:
        self.backend = backend
        self.cancellation = Cancellation(backend.engine.cancel, backend.engine.resume)
        self._tuner = tuner
        self._policies: dict[tuple[PolicyChoice, bool], Policy] = {}
        tuner.limit_threads(backend, measure=False)
        self._spoken: tuple[str, list[int]] = ("", [])  # the last prompt with its answer: text and tokens

    def generate(self, request: Generate, emit: Emit) -> None:
        """Answers one request; emits Started, Tokens..., Done. Raises errors with a title and a message."""
        try:
            self._generate(request, emit)
        except BaseException:
            self._spoken = ("", [])
            self.backend.engine.roll_back(0)  # whatever state the failure left
            raise
        finally:
            self.cancellation.forget(request.request)
        try:
            self._tuner.limit_threads(self.backend, measure=True)
        except Exception:
            traceback.print_exc()  # to the log: the answer is out, and an error now would be the next one's

    def _generate(self, request: Generate, emit: Emit) -> None:
        began = time.perf_counter()
        text, tokens = self._prompt(request)
        sampling = request.options.sampling
        seeded = sampling.temperature > 0 and sampling.seed is not None
        verdict = self._tuner.choose(self.backend, request.options.policy, reproducible=seeded)
        policy = self._policy(request.options.policy, verdict)
        if sum(m.role == "user" for m in request.messages) <= 1:
            policy.reset()
        seed = sampling.seed
        plan = _Plan(request.options, tokens, policy, verdict, _random_seed() if seed is None else seed, began)
        reused = self._prefill(request.request, tokens, emit)
        answer = Answer(self.backend.piece, emit, began)
        if reused is None:
            emit(Done(self._stats(plan, answer, 0, "cancelled")))
            return
        emit(Started(policy.name, verdict.reason, len(tokens), reused, plan.seed, verdict.dense_rate))
        cancelled = self._decode(request.request, plan, answer)
        answer.finish()
        if verdict.undecided is not None:
            self._tuner.save()
        self._spoken = (text + answer.text, tokens + answer.words)
        emit(Done(self._stats(plan, answer, reused, "cancelled" if cancelled else self._stop_reason(plan, answer))))

    def _decode(self, request: int, plan: _Plan, answer: Answer) -> bool:
        """Runs the policy to its end; True when the request was cancelled on the way."""
        sampler = self.backend.sampler(plan.options.sampling)
        sampler.rewind(plan.tokens)
        rng = np.random.default_rng(plan.seed)
        engine = self.backend.engine
        steps = plan.policy.generate(engine, sampler, rng, plan.options.max_tokens, plan.tokens)
        # closing: the policy settles its rows however this loop ends
        with closing(steps):  # type: ignore[type-var]
            for event in steps:
                answer.add(event)
                if self.cancellation.wanted(request):
                    return True
        return False

    # ---- the prompt ------------------------------------------------------------------------------------------------

    def _prompt(self, request: Generate) -> tuple[str, list[int]]:
        """The conversation as text and tokens. The last answer's own tokens are kept where the text goes on from it."""
        if request.go_on:
            *before, begun = request.messages
            text = self.backend.format(before) + begun.content
        else:
            text = self.backend.format(request.messages)
        tokens = self._continued(text) or self._tokenize(text, start=True)
        if not tokens:
            raise AppError("empty prompt", "there is nothing to answer")
        if len(tokens) >= self.backend.engine.n_ctx:
            raise AppError(
                "prompt too long",
                f"it has {len(tokens)} tokens, the window holds {self.backend.engine.n_ctx}; "
                "shorten it, begin a new conversation, or give a larger --ctx",
                PROMPT_TOO_LONG,
            )
        return text, tokens

    def _continued(self, text: str) -> list[int]:
        """The last prompt, its answer's own tokens (text may split otherwise), and the rest; [] if it does not fit."""
        before, tokens = self._spoken
        if not before or not text.startswith(before):
            return []
        if text == before:  # the last answer itself goes on
            return tokens
        rest = self._tokenize(text[len(before) :])
        return tokens + rest if rest and self.backend.engine.is_stop(rest[0]) else []

    def _tokenize(self, text: str, *, start: bool = False) -> list[int]:
        """Special tokens are read as such; the model's BOS comes first where the template has not put it there."""
        bos = start and not (self.backend.bos_text and text.startswith(self.backend.bos_text))
        return self.backend.tokenize(text, bos=bos)

    def _prefill(self, request: int, tokens: list[int], emit: Emit) -> int | None:
        """Reads the prompt; returns how many tokens were in the cache already, None when cancelled."""
        try:
            with self.cancellation.interruptible(request):
                reused = self.backend.engine.prefill(tokens, lambda done, total: emit(PromptProgress(done, total)))
        except Exception:
            if not self.cancellation.wanted(request):
                raise
            return None  # the engine keeps what was read before
        return None if self.cancellation.wanted(request) else reused

    # ---- policy and figures ----------------------------------------------------------------------------------------

    def _policy(self, wanted: PolicyChoice, verdict: Verdict) -> Policy:
        """Policies last as long as the model: they remember the exits of the last tokens."""
        key = (wanted if verdict.undecided else verdict.choice, verdict.undecided is not None)
        if key not in self._policies:
            self._policies[key] = self._tuner.policy(self.backend, wanted, verdict)
        return self._policies[key]

    @staticmethod
    def _stop_reason(plan: _Plan, answer: Answer) -> str:
        if answer.events and answer.events[-1].stop:
            return "stop"
        return "length" if len(answer.events) >= plan.options.max_tokens else "window"

    def _stats(self, plan: _Plan, answer: Answer, reused: int, stop_reason: str) -> Stats:
        ended = time.perf_counter()
        events = answer.events
        first_at = answer.first_at if answer.first_at is not None else ended
        decoding = ended - first_at
        words = [event for event in events if not event.stop]
        return Stats(
            prompt_tokens=plan.prompt_tokens,
            reused=reused,
            tokens=len(words),
            ttft_s=first_at - plan.began,
            total_s=ended - plan.began,
            tokens_per_second=(len(events) - 1) / decoding if len(events) > 1 and decoding > 0 else 0.0,
            mean_exit_layer=sum(e.exit_layer for e in words) / len(words) if words else 0.0,
            n_layers=self.backend.info.n_layers,
            policy=plan.policy.name,
            policy_reason=plan.verdict.reason,
            stop_reason=stop_reason,
            seed=plan.seed,
            dense_rate=plan.verdict.undecided.dense_rate if plan.verdict.undecided else plan.verdict.dense_rate,
            policy_stats=asdict(plan.policy.stats),
        )


def _random_seed() -> int:
    return random.SystemRandom().randrange(2**31)
