"""From runs to figures, and figures as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from specee.app.bench import metrics
from specee.app.bench.prompts import Prompt
from specee.app.bench.run import Contender, Judged, Run
from specee.predictors.decoding import PolicyStats

Results = Sequence[dict[str, tuple[Run, Judged]]]


def report(
    contenders: Sequence[Contender], prompts: Sequence[Prompt], results: Results, facts: dict[str, Any]
) -> dict[str, Any]:
    """The object of --json: `facts`, and per policy its figures and what differed from dense.

    Shares are between 0 and 1. `until_loop` counts each answer only up to its first repeated 12-gram.
    """
    policies = {c.label: _figures(c, prompts, results) for c in contenders}
    return {**facts, "prompts": len(prompts), "policies": policies}


def _figures(contender: Contender, prompts: Sequence[Prompt], results: Results) -> dict[str, Any]:
    label = contender.label
    mine = [r[label] for r in results]
    dense = [r["dense"] for r in results]
    runs = [run for run, _ in mine]
    stats = sum((run.stats for run in runs), PolicyStats())
    ratios = [a.rate / b.rate for (a, _), (b, _) in zip(mine, dense, strict=True) if a.rate > 0 and b.rate > 0]
    differences = {
        prompt.id: at
        for prompt, (run, _), (measure, _) in zip(prompts, mine, dense, strict=True)
        if (at := metrics.first_difference(run.tokens, measure.tokens)) is not None
    }
    decoded = sum(max(0, len(run.tokens) - 1) for run in runs)
    return {
        "policy": contender.verdict.choice.label,
        "policy_reason": contender.verdict.reason,
        "tokens": sum(len(run.tokens) for run in runs),
        "tokens_per_second": metrics.ratio(decoded, sum(run.seconds for run in runs)),
        "speedup": metrics.geometric_mean(ratios),
        "speedup_min": min(ratios, default=None),
        "speedup_max": max(ratios, default=None),
        "mean_exit_layer": _mean([layer for run in runs for layer in run.layers]),
        "exit_layers": dict(sorted(Counter(layer for run in runs for layer in run.layers).items())),
        "acceptance": metrics.ratio(stats.accepted, stats.tested),
        "tokens_per_pass": metrics.ratio(decoded, stats.passes),
        "agreement": _agreement(mine),
        "ppl_ratio": _ppl_ratio(mine, dense),
        "duplicate_words": metrics.duplicate_words(run.text for run in runs),
        "identical_texts": len(results) - len(differences),
        "first_differences": differences,
        "until_loop": _until_loop(mine, dense),
        "stats": stats.as_dict(),
    }


def _mean(values: Sequence[float]) -> float | None:
    return metrics.ratio(sum(values), len(values))


def _agreement(pairs: Sequence[tuple[Run, Judged]], cuts: Sequence[int] | None = None) -> float | None:
    equal = [
        token == choice
        for i, (run, judged) in enumerate(pairs)
        for token, choice in zip(run.tokens[: cuts[i] if cuts else None], judged.choices, strict=False)
    ]
    return _mean(equal)


def _ppl_ratio(mine: Sequence[tuple[Run, Judged]], dense: Sequence[tuple[Run, Judged]]) -> float | None:
    own = _mean([x for _, judged in mine for x in judged.nll])
    measure = _mean([x for _, judged in dense for x in judged.nll])
    return None if own is None or measure is None else math.exp(own - measure)


def _until_loop(mine: Sequence[tuple[Run, Judged]], dense: Sequence[tuple[Run, Judged]]) -> dict[str, Any]:
    cuts = [_cut(run) for run, _ in mine]
    ratios = []
    for (run, _), (measure, _), cut in zip(mine, dense, cuts, strict=True):
        a, b = _rate_until(run, cut), _rate_until(measure, _cut(measure))
        if a and b:
            ratios.append(a / b)
    return {
        "answers_that_loop": sum(cut < len(run.tokens) for (run, _), cut in zip(mine, cuts, strict=True)),
        "tokens": sum(cuts),
        "mean_exit_layer": _mean([x for (run, _), cut in zip(mine, cuts, strict=True) for x in run.layers[:cut]]),
        "agreement": _agreement(mine, cuts),
        "speedup": metrics.geometric_mean(ratios),
    }


def _cut(run: Run) -> int:
    found = metrics.loop_start(run.tokens)
    return len(run.tokens) if found is None else found


def _rate_until(run: Run, cut: int) -> float | None:
    return (cut - 1) / run.times[cut - 1] if cut > 1 and run.times[cut - 1] > 0 else None


_COLUMNS = (
    ("tok/s", "tokens_per_second", ".1f"),
    ("speed-up", "speedup", ".3f"),
    ("min", "speedup_min", ".2f"),
    ("max", "speedup_max", ".2f"),
    ("exit layer", "mean_exit_layer", ".2f"),
    ("accepted", "acceptance", ".1%"),
    ("tok/pass", "tokens_per_pass", ".2f"),
    ("agreement", "agreement", ".1%"),
    ("ppl ratio", "ppl_ratio", ".3f"),
    ("dup. words", "duplicate_words", ".2%"),
    ("same text", "identical_texts", "d"),
)


def table(report: dict[str, Any]) -> str:
    """The report for people: facts, a row a policy, and what differs from dense."""
    rows = [["policy", *(title for title, _, _ in _COLUMNS)]]
    for label, figures in report["policies"].items():
        shown = label if figures["policy"] == label else f"{label} = {figures['policy']}"
        rows.append([shown, *(_cell(figures[key], form) for _, key, form in _COLUMNS)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*_head(report), "", *lines, "", *_until_loop_lines(report)])


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _head(report: dict[str, Any]) -> list[str]:
    m = report["machine"]
    return [
        f"{report['model']} ({report['arch']}, {report['n_layers']} layers, sha256 {report['model_sha256'][:12]}), "
        f"{report['prompts']} prompts, at most {report['max_tokens']} tokens, temperature {report['temperature']:g}, "
        f"repeat penalty {report['repeat_penalty']:g}",
        f"{m['cpu']}, {m['threads']} threads, kernels: {m['kernels']}, specee-chat {report['version']}",
    ]


def _until_loop_lines(report: dict[str, Any]) -> list[str]:
    lines = ["up to the first repeated 12-gram of each answer:"]
    for label, figures in report["policies"].items():
        u = figures["until_loop"]
        lines.append(
            f"  {label}: speed-up {_cell(u['speedup'], '.3f')}, exit layer {_cell(u['mean_exit_layer'], '.2f')}, "
            f"agreement {_cell(u['agreement'], '.1%')}; {u['answers_that_loop']} of {report['prompts']} answers loop"
        )
    return lines
