"""From runs to figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from specee.app.bench import metrics
from specee.app.bench.policy_run import ComparedPolicy, PolicyRun, ScoredRun
from specee.app.bench.prompts import BenchPrompt
from specee.app.first_difference import first_difference
from specee.predictors.decoding.stats import DecodingStats
from specee.predictors.repetition import loop_start


def report(
    policies: Sequence[ComparedPolicy],
    prompts: Sequence[BenchPrompt],
    results: Sequence[dict[str, ScoredRun]],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The object of --json: `facts`, and per policy its figures and where its texts differ from dense.

    Shares are between 0 and 1. `until_loop` counts each answer only up to its first repeated 12-gram.
    """
    figures = {policy.label: _figures(policy, prompts, results) for policy in policies}
    return {**facts, "prompts": len(prompts), "policies": figures}


def _figures(
    policy: ComparedPolicy, prompts: Sequence[BenchPrompt], results: Sequence[dict[str, ScoredRun]]
) -> dict[str, Any]:
    own = [result[policy.label] for result in results]
    dense = [result["dense"] for result in results]
    runs = [run for run, _ in own]
    stats = sum((run.stats for run in runs), DecodingStats())
    ratios = [a.rate / b.rate for (a, _), (b, _) in zip(own, dense, strict=True) if a.rate > 0 and b.rate > 0]
    differences = {
        prompt.id: at
        for prompt, (run, _), (baseline, _) in zip(prompts, own, dense, strict=True)
        if (at := first_difference(run.tokens, baseline.tokens)) is not None
    }
    decoded = sum(max(0, len(run.tokens) - 1) for run in runs)
    return {
        "policy": policy.choice.label,
        "policy_reason": policy.reason,
        "tokens": sum(len(run.tokens) for run in runs),
        "tokens_per_second": metrics.ratio(decoded, sum(run.seconds for run in runs)),
        "speedup": metrics.geometric_mean(ratios),
        "speedup_min": min(ratios, default=None),
        "speedup_max": max(ratios, default=None),
        "mean_exit_layer": _mean([layer for run in runs for layer in run.layers]),
        "exit_layers": dict(sorted(Counter(layer for run in runs for layer in run.layers).items())),
        "acceptance": metrics.ratio(stats.accepted, stats.tested),
        "tokens_per_step": metrics.ratio(decoded, stats.steps),
        "agreement": _agreement(own),
        "ppl_ratio": _ppl_ratio(own, dense),
        "duplicate_words": metrics.duplicate_words(run.text for run in runs),
        "identical_texts": len(results) - len(differences),
        "first_differences": differences,
        "until_loop": _until_loop(own, dense),
        "stats": stats.as_dict(),
    }


def _mean(values: Sequence[float]) -> float | None:
    return metrics.ratio(sum(values), len(values))


def _agreement(runs: Sequence[ScoredRun], ends: Sequence[int] | None = None) -> float | None:
    equal = [
        token == choice
        for i, (run, scores) in enumerate(runs)
        for token, choice in zip(run.tokens[: ends[i] if ends else None], scores.choices, strict=False)
    ]
    return _mean(equal)


def _ppl_ratio(own: Sequence[ScoredRun], dense: Sequence[ScoredRun]) -> float | None:
    mean = _mean([x for _, scores in own for x in scores.nll])
    baseline = _mean([x for _, scores in dense for x in scores.nll])
    return None if mean is None or baseline is None else math.exp(mean - baseline)


def _until_loop(own: Sequence[ScoredRun], dense: Sequence[ScoredRun]) -> dict[str, Any]:
    ends = [_end(run) for run, _ in own]
    ratios = []
    for (run, _), (baseline, _), end in zip(own, dense, ends, strict=True):
        a, b = _rate_until(run, end), _rate_until(baseline, _end(baseline))
        if a and b:
            ratios.append(a / b)
    return {
        "answers_that_loop": sum(end < len(run.tokens) for (run, _), end in zip(own, ends, strict=True)),
        "tokens": sum(ends),
        "mean_exit_layer": _mean([x for (run, _), end in zip(own, ends, strict=True) for x in run.layers[:end]]),
        "agreement": _agreement(own, ends),
        "speedup": metrics.geometric_mean(ratios),
    }


def _end(run: PolicyRun) -> int:
    """Number of tokens before the answer begins to repeat itself."""
    found = loop_start(run.tokens)
    return len(run.tokens) if found is None else found


def _rate_until(run: PolicyRun, end: int) -> float | None:
    return (end - 1) / run.times[end - 1] if end > 1 and run.times[end - 1] > 0 else None
