"""Runs policies over prompts in turn, with one engine: whatever the machine does meanwhile hits all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from specee.app.bench.dense_scores import DenseScores, score
from specee.app.bench.policy_run import ComparedPolicy, PolicyRun, ScoredRun
from specee.app.bench.prompts import BenchPrompt
from specee.app.bench.report import report
from specee.app.engine.backend import Backend
from specee.app.engine.decode import decode
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Emit, Message, Progress
from specee.app.engine.verified_text import VerifiedText
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.first_difference import first_difference
from specee.app.options import LoadOptions, PolicyChoice, Sampling
from specee.predictors.decoding.policy import Policy
from specee.predictors.types import TokenState

WARM_UP_TOKENS = 16
DENSE = PolicyChoice("dense")


def run_bench(
    load: LoadOptions,
    emit: Emit,
    prompts: Sequence[BenchPrompt],
    choices: Sequence[PolicyChoice],
    sampling: Sampling,
    max_tokens: int,
    system: str | None = None,
) -> dict[str, Any]:
    """The whole benchmark in the engine process; returns the report (see bench.report)."""
    from specee.app import machine, paths
    from specee.app.engine.loading import open_backend

    backend = open_backend(load, lambda what, fraction: emit(Progress(what, fraction)))
    chooser = PolicyChooser(Measurements(paths.find(load.data_dir).measurements, machine.library_build()))
    policies = _decide(backend, chooser, choices)
    results = compare(backend, chooser, policies, prompts, sampling, max_tokens, system, emit)
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
    return report(policies, prompts, results, facts)


def _decide(backend: Backend, chooser: PolicyChooser, choices: Sequence[PolicyChoice]) -> list[ComparedPolicy]:
    """Dense first, whether asked for or not: the others are measured against it."""
    found = {DENSE.label: ComparedPolicy(DENSE.label, DENSE, "the others are measured against it")}
    for choice in choices:
        if choice.label not in found:
            decided = chooser.decide(backend, choice)
            found[choice.label] = ComparedPolicy(choice.label, decided.choice, decided.reason)
    return list(found.values())


def compare(
    backend: Backend,
    chooser: PolicyChooser,
    policies: Sequence[ComparedPolicy],
    prompts: Sequence[BenchPrompt],
    sampling: Sampling,
    max_tokens: int,
    system: str | None,
    emit: Emit,
) -> list[dict[str, ScoredRun]]:
    """For each prompt, by label: the run and dense's scores. The order of the policies rotates."""
    results = []
    made = {policy.label: chooser.build_policy(backend, policy.choice) for policy in policies}
    for index, prompt in enumerate(prompts):
        tokens = _prompt_tokens(backend, prompt, system, max_tokens)
        if index == 0:
            for policy in made.values():  # graphs are built at their first use
                _run(backend, policy, tokens, sampling, WARM_UP_TOKENS)
        first = index % len(policies)
        runs = {}
        for step, compared in enumerate((*policies[first:], *policies[:first])):
            done = (index + step / len(policies)) / len(prompts)
            emit(Progress(f"prompt {index + 1} of {len(prompts)}: {compared.label}", done))
            runs[compared.label] = _run(backend, made[compared.label], tokens, sampling, max_tokens)
        results.append(_score_all(backend, tokens, runs, sampling))
    return results


def _prompt_tokens(backend: Backend, prompt: BenchPrompt, system: str | None, max_tokens: int) -> list[int]:
    messages = [Message("system", system)] if system else []
    tokens = make_prompt(backend, [*messages, Message("user", prompt.text)]).tokens
    if len(tokens) + max_tokens > backend.engine.n_ctx:
        raise AppError(
            "prompt too long",
            f"prompt {prompt.id} and an answer of {max_tokens} tokens do not fit a window of {backend.engine.n_ctx}; "
            "try a larger --ctx or a smaller --max-tokens",
            PROMPT_TOO_LONG,
        )
    return tokens


def _run(backend: Backend, policy: Policy, prompt: list[int], sampling: Sampling, max_tokens: int) -> PolicyRun:
    engine = backend.engine
    engine.roll_back(0)  # all start alike: a prompt that is read in other batches rounds otherwise
    engine.prefill(prompt)
    policy.reset()
    verified = VerifiedText(backend.piece)
    times: dict[int, float] = {}
    text = ""
    first_at = 0.0
    state, steps = decode(backend, policy, prompt, sampling, sampling.seed or 0, max_tokens)
    with closing(steps):  # type: ignore[type-var]
        for event in steps:
            now = time.perf_counter()
            first_at = first_at or now
            text += verified.add(event)
            if event.state is TokenState.VERIFIED:
                times[event.index] = now - first_at
    seconds = time.perf_counter() - first_at
    events = verified.verified
    return PolicyRun(
        [e.token for e in events],
        [e.exit_layer for e in events],
        [times[e.index] for e in events],
        seconds,
        text + verified.finish(),
        state.stats,
    )


def _score_all(
    backend: Backend, prompt: list[int], runs: dict[str, PolicyRun], sampling: Sampling
) -> dict[str, ScoredRun]:
    dense = runs[DENSE.label]
    own = score(backend, prompt, dense.tokens, sampling)
    scored = {}
    for label, run in runs.items():
        # up to the first difference the text is dense's own, and so are the scores
        same = first_difference(run.tokens, dense.tokens)
        same = len(dense.tokens) if same is None else same
        rest = score(backend, prompt, run.tokens, sampling, same)
        scored[label] = (run, DenseScores(own.nll[:same] + rest.nll, own.choices[:same] + rest.choices))
    return scored
