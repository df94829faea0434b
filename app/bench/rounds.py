"""Policies, and the unpatched library, over prompts in turn: whatever the machine does meanwhile hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final

from specee.app.bench.answer import Answer, PolicyAnswer, Round, StepCounts
from specee.app.bench.dense_scores import score_all
from specee.app.bench.prompts import Asked, BenchPrompt
from specee.app.engine.backend import Backend
from specee.app.engine.decode import decode
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Emit, Message, Progress
from specee.app.engine.verified_text import VerifiedText
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.options import Sampling
from specee.predictors.decoding.policy import Policy
from specee.predictors.types import TokenEvent, TokenState

WARM_UP_TOKENS = 16
DENSE: Final = "dense"
STOCK = "stock"

AskStock = Callable[[Sequence[int], int], Answer]
"""Stock.answer: the prompt's tokens and the most tokens of the answer."""


def compare(
    backend: Backend,
    make_policies: Callable[[], Mapping[str, Policy]],
    prompts: Sequence[BenchPrompt],
    asked: Asked,
    emit: Emit,
    stock: AskStock | None = None,
    prepare: Callable[[str], None] = lambda label: None,
) -> Iterator[Round]:
    """One round after the other. `make_policies`: fresh ones, by label, dense first. `prepare`: before each answer.

    The order is turned round from prompt to prompt, so that a machine that slows down harms all alike. Every repeat
    begins with policies that have learned nothing.
    """
    tokens = [_prompt_tokens(backend, prompt, asked) for prompt in prompts]
    for label, policy in make_policies().items():  # graphs are built at their first use
        prepare(label)
        _answer(backend, policy, tokens[0], asked.sampling, WARM_UP_TOKENS)
    if stock is not None:
        stock(tokens[0], WARM_UP_TOKENS)
    for repeat in range(asked.repeats):
        policies = make_policies()
        order = [*policies, *([STOCK] if stock is not None else [])]
        for index, prompt in enumerate(tokens):
            answers: dict[str, PolicyAnswer] = {}
            theirs = None
            for step, label in enumerate(order if (index + repeat) % 2 == 0 else reversed(order)):
                done = (repeat * len(tokens) + index + step / len(order)) / (len(tokens) * asked.repeats)
                emit(Progress(_what(index, len(tokens), repeat, asked.repeats, label), done))
                if label in policies:
                    prepare(label)
                    answers[label] = _answer(backend, policies[label], prompt, asked.sampling, asked.max_tokens)
                elif stock is not None:
                    theirs = stock(prompt, asked.max_tokens)
            answers = {label: answers[label] for label in policies}
            scores = {} if repeat else score_all(backend, prompt, answers, DENSE, asked.sampling)
            yield Round(index, answers, theirs, scores)


def _what(index: int, prompts: int, repeat: int, repeats: int, label: str) -> str:
    which = f"repeat {repeat + 1} of {repeats}, " if repeats > 1 else ""
    return f"{which}prompt {index + 1} of {prompts}: {label}"


def _prompt_tokens(backend: Backend, prompt: BenchPrompt, asked: Asked) -> list[int]:
    messages = [Message("system", asked.system)] if asked.system else []
    tokens = make_prompt(backend, [*messages, Message("user", prompt.text)]).tokens
    if len(tokens) + asked.max_tokens > backend.engine.n_ctx:
        larger = backend.info.larger_window
        raise AppError(
            "prompt too long",
            f"prompt {prompt.id} and an answer of {asked.max_tokens} tokens do not fit a window of "
            f"{backend.engine.n_ctx}; {', or '.join(filter(None, ('give a smaller --max-tokens', larger)))}",
            PROMPT_TOO_LONG,
        )
    return tokens


def _answer(backend: Backend, policy: Policy, prompt: list[int], sampling: Sampling, max_tokens: int) -> PolicyAnswer:
    engine = backend.engine
    engine.roll_back(0)  # all start alike: a prompt that is read in other batches rounds otherwise
    engine.prefill(prompt)
    policy.reset()
    state, steps = decode(backend, policy, prompt, sampling, sampling.seed or 0, max_tokens)
    stats = state.stats
    seen: list[tuple[float, TokenEvent, StepCounts]] = []
    with closing(steps):  # type: ignore[type-var]
        for event in steps:
            counts = StepCounts(stats.steps, stats.tested, stats.accepted)
            seen.append((time.perf_counter(), event, counts))
    verified = VerifiedText(backend.piece)
    pieces = [piece for _, event, _ in seen for piece in verified.add(event)] + verified.finish()
    text = "".join(text for _, text in pieces)
    last = {event.index: (at, counts) for at, event, counts in seen if event.state is TokenState.VERIFIED}
    first_at = seen[0][0]
    events = verified.verified
    return PolicyAnswer(
        tokens=[event.token for event in events],
        times=[last[event.index][0] - first_at for event in events],
        exit_layers=[event.exit_layer for event in events],
        counts=[last[event.index][1] for event in events],
        text=text,
        stats=stats,
    )
