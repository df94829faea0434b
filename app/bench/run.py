"""Runs policies over prompts in turn, with one engine: whatever the machine does meanwhile hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from specee.app.bench import metrics
from specee.app.bench.prompts import Prompt
from specee.app.engine.auto_policy import AutoPolicy, PolicyDecision
from specee.app.engine.backend import Backend, ChatEngine
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message, Progress
from specee.app.engine.verified_text import VerifiedText
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.options import LoadOptions, PolicyChoice, Sampling
from specee.predictors.decoding import PolicyStats
from specee.predictors.types import State

Emit = Callable[[object], None]
WARM_UP_TOKENS = 16


@dataclass(frozen=True)
class Contender:
    """A column of the report: what was asked for, and what runs for it (they differ for `auto`)."""

    label: str
    verdict: PolicyDecision


@dataclass(frozen=True)
class Run:
    """One answer. `tokens` include the stop token; `times` count from the first token, when each was verified."""

    tokens: list[int]
    layers: list[int]
    times: list[float]
    seconds: float
    text: str
    stats: PolicyStats

    @property
    def rate(self) -> float:
        """Decoded tokens per second; the first token comes from the prompt."""
        return (len(self.tokens) - 1) / self.seconds if len(self.tokens) > 1 and self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Judged:
    """The dense model's opinion of a text: for each token its negative log-probability, and dense's own choice."""

    nll: list[float]
    choices: list[int]


def run_bench(
    load: LoadOptions,
    emit: Emit,
    prompts: Sequence[Prompt],
    choices: Sequence[PolicyChoice],
    sampling: Sampling,
    max_tokens: int,
    system: str | None = None,
) -> dict[str, Any]:
    """The whole benchmark in the engine process; returns the report (see bench.report)."""
    from specee.app import machine, paths
    from specee.app.bench.report import report
    from specee.app.engine.loading import open_backend

    backend = open_backend(load, lambda what, fraction: emit(Progress(what, fraction)))
    auto_policy = AutoPolicy(paths.find(load.data_dir).tuner, machine.library_build())
    contenders = _contenders(backend, auto_policy, choices, emit)
    results = compare(backend, contenders, prompts, sampling, max_tokens, system, emit)
    facts = {
        "model": backend.info.name,
        "model_sha256": backend.sha256,
        "arch": backend.info.arch,
        "n_layers": backend.info.n_layers,
        "calibrated": backend.info.calibrated,
        "max_tokens": max_tokens,
        "temperature": sampling.temperature,
        "repeat_penalty": sampling.repeat_penalty,
        "version": machine.package_version(),
        "machine": machine.report(backend.info.threads),
    }
    return report(contenders, prompts, results, facts)


def _contenders(
    backend: Backend, auto_policy: AutoPolicy, choices: Sequence[PolicyChoice], emit: Emit
) -> list[Contender]:
    """Dense first, whether asked for or not: it is the measure."""
    found = {"dense": Contender("dense", PolicyDecision(PolicyChoice("dense"), "the measure"))}
    for choice in choices:
        if choice.label not in found:
            found[choice.label] = Contender(choice.label, auto_policy.measure(backend, choice, emit))
    return list(found.values())


def compare(
    backend: Backend,
    contenders: Sequence[Contender],
    prompts: Sequence[Prompt],
    sampling: Sampling,
    max_tokens: int,
    system: str | None,
    emit: Emit,
) -> list[dict[str, tuple[Run, Judged]]]:
    """For each prompt, by label: the run and its judgement. The order of the policies rotates from prompt to prompt."""
    results = []
    policies = {c.label: backend.policy(c.verdict.choice) for c in contenders}
    for index, prompt in enumerate(prompts):
        tokens = _prompt_tokens(backend, prompt, system, max_tokens)
        if index == 0:
            for policy in policies.values():  # graphs are built at their first use
                _run(backend, policy, tokens, sampling, WARM_UP_TOKENS)
        turn = index % len(contenders)
        runs = {}
        for step, contender in enumerate((*contenders[turn:], *contenders[:turn])):
            done = (index + step / len(contenders)) / len(prompts)
            emit(Progress(f"prompt {index + 1} of {len(prompts)}: {contender.label}", done))
            runs[contender.label] = _run(backend, policies[contender.label], tokens, sampling, max_tokens)
        results.append(_judge_all(backend, tokens, runs, sampling))
    return results


def _prompt_tokens(backend: Backend, prompt: Prompt, system: str | None, max_tokens: int) -> list[int]:
    messages = [Message("system", system)] if system else []
    tokens = make_prompt(backend, [*messages, Message("user", prompt.text)]).tokens
    if len(tokens) + max_tokens > backend.engine.n_ctx:
        raise AppError("prompt too long", f"prompt {prompt.id} with its answer leaves the window", PROMPT_TOO_LONG)
    return tokens


def _run(backend: Backend, policy: Any, prompt: list[int], sampling: Sampling, max_tokens: int) -> Run:
    engine = backend.engine
    engine.roll_back(0)  # all start alike: a prompt that is read in other batches rounds otherwise
    engine.prefill(prompt)
    policy.reset()
    sampler = backend.sampler(sampling)
    sampler.rewind(prompt)
    text = VerifiedText(backend.piece)
    times: dict[int, float] = {}
    said = ""
    first_at = 0.0
    steps = policy.generate(engine, sampler, np.random.default_rng(sampling.seed or 0), max_tokens, prompt)
    with closing(steps):
        for event in steps:
            now = time.perf_counter()
            first_at = first_at or now
            said += text.add(event)
            if event.state is State.VERIFIED:
                times[event.index] = now - first_at
    seconds = time.perf_counter() - first_at
    events = text.verified
    return Run(
        [e.token for e in events],
        [e.exit_layer for e in events],
        [times[e.index] for e in events],
        seconds,
        said + text.finish(),
        replace(policy.stats),
    )


def _judge_all(
    backend: Backend, prompt: list[int], runs: dict[str, Run], sampling: Sampling
) -> dict[str, tuple[Run, Judged]]:
    dense = runs["dense"]
    measure = judge(backend, prompt, dense.tokens, sampling)
    judged = {}
    for label, run in runs.items():
        # up to the first difference the text is dense's own, and so is the judgement
        same = metrics.first_difference(run.tokens, dense.tokens)
        same = len(dense.tokens) if same is None else same
        rest = judge(backend, prompt, run.tokens, sampling, same)
        opinion = Judged(measure.nll[:same] + rest.nll, measure.choices[:same] + rest.choices)
        judged[label] = (run, opinion)
    return judged


def _read(engine: ChatEngine, prompt: list[int], text: list[int]) -> None:
    """Brings prompt and text into the cache as dense decoding does: the prompt at once, then a row for each token."""
    wanted = prompt + text[:-1]
    keep = next((i for i, (a, b) in enumerate(zip(engine.tokens, wanted, strict=False)) if a != b), None)
    keep = min(len(engine.tokens), len(wanted)) if keep is None else keep
    if not text or keep < len(prompt):
        engine.roll_back(0)
        engine.prefill(prompt)
        keep = len(prompt)
    engine.roll_back(keep)
    for token in text[keep - len(prompt) :]:
        engine.advance(engine.length, 1, engine.n_layer, tokens=[token], logits=True)


def judge(backend: Backend, prompt: list[int], text: list[int], sampling: Sampling, begin: int = 0) -> Judged:
    """Runs a text through the dense model, one row at a time (as dense decodes), from token `begin` on."""
    judged = Judged([], [])
    if begin >= len(text):
        return judged
    engine = backend.engine
    _read(engine, prompt, text[:begin])
    sampler = backend.sampler(replace(sampling, temperature=0.0))
    sampler.rewind(prompt + text[:begin])
    for index in range(begin, len(text)):
        token = text[index]
        judged.choices.append(int(engine.greedy(0, sampler)))
        judged.nll.append(metrics.nll(engine.logits(0), token))
        sampler.accept(token)
        if index + 1 < len(text):
            engine.advance(engine.length, 1, engine.n_layer, tokens=[token], logits=True)
    return judged
