"""`specee-chat bench`: how fast the policies are, and what they do to the text."""

from __future__ import annotations

from typing import Any

import click

from specee.app import options as opts
from specee.app.cli import tables
from specee.app.cli.command import Command
from specee.app.cli.option import option
from specee.app.cli.output import show
from specee.app.cli.shared_options import (
    DRAFTER,
    ENGINE,
    EVERYWHERE,
    EXITS,
    JSON,
    SYSTEM,
    given_sampling,
    load_options,
    max_tokens,
    policy_choice,
    sampling,
)

MAX_TOKENS = 128
POLICIES = "dense,specee,exact,auto"


@click.command(
    cls=Command,
    params=[max_tokens(MAX_TOKENS), SYSTEM, *ENGINE, DRAFTER, *EXITS, *sampling(opts.PLAIN_GREEDY), *EVERYWHERE, JSON],
)
@option(
    "--prompts",
    metavar="FILE.jsonl",
    help='Ask what is in this file: {"prompt": "..."} on each line.',
    otherwise="eight questions of ours",
)
@option(
    "--policies",
    default=POLICIES,
    otherwise=POLICIES,
    metavar="A,B,..",
    help="What to compare: dense, chain, exact, specee, auto; in short also specee@0.5 or exact:margin "
    "(see specee-chat -h).",
)
@option("--limit", type=click.IntRange(1), metavar="N", help="Ask the first N prompts only.", otherwise="all")
def bench(prompts: str | None, policies: str, limit: int | None, as_json: bool, **values: Any) -> int:
    """Compare the policies: how fast they are, and their text.

    A policy is a way to compute tokens: dense sends each of them through all layers, the others let tokens skip some.
    All policies answer the same prompts in turn, and each is compared with dense.

    \b
    specee-chat bench
    specee-chat bench --model qwen2.5-1.5b --policies exact,exact:margin,auto
    specee-chat bench --prompts questions.jsonl --json > figures.json
    """
    from specee.app.bench.prompts import read_prompts
    from specee.app.cli.task import run_task

    arguments = {
        "prompts": read_prompts(prompts)[:limit],
        "choices": [policy_choice(values, spec) for spec in policies.split(",") if spec.strip()],
        "sampling": given_sampling(values, opts.PLAIN_GREEDY),
        "max_tokens": values["max_tokens"] or MAX_TOKENS,
        "system": values["system"],
    }
    return show(run_task("bench", load_options(values), arguments), as_json, text)


_FIGURES = (
    ("tokens/s", "tokens_per_second", ".1f"),
    ("speed-up", "speedup", ".3f"),
    ("min", "speedup_min", ".2f"),
    ("max", "speedup_max", ".2f"),
    ("exit layer", "mean_exit_layer", ".2f"),
    ("accepted", "acceptance", ".1%"),
    ("tokens/step", "tokens_per_step", ".2f"),
    ("agreement", "agreement", ".1%"),
    ("ppl ratio", "ppl_ratio", ".3f"),
    ("dup. words", "duplicate_words", ".2%"),
    ("same text", "identical_texts", "d"),
)


def text(report: dict[str, Any]) -> str:
    """The report for people: what was measured, a row a policy, and the same without what the model only repeats."""
    columns = [tables.Column("policy"), *(tables.Column(title, right=True) for title, _, _ in _FIGURES)]
    rows = [
        [_name(label, figures), *(_cell(figures[key], form) for _, key, form in _FIGURES)]
        for label, figures in report["policies"].items()
    ]
    return "\n\n".join([_head(report), tables.table(columns, rows), _until_loop(report)])


def _name(label: str, figures: dict[str, Any]) -> str:
    return label if figures["policy"] == label else f"{label} = {figures['policy']}"


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _head(report: dict[str, Any]) -> str:
    machine = report["machine"]
    return (
        f"{report['model']} ({report['arch']}, {report['n_layers']} layers, sha256 {report['model_sha256'][:12]}), "
        f"prompts: {report['prompts']}, at most {report['max_tokens']} tokens, temperature {report['temperature']:g}, "
        f"repeat penalty {report['repeat_penalty']:g}\n"
        f"{machine['cpu']}, {machine['threads']} threads, kernels: {machine['kernels']}, "
        f"specee-chat {report['version']}"
    )


def _until_loop(report: dict[str, Any]) -> str:
    lines = ["each answer only until it repeats 12 tokens of its own:"]
    for label, figures in report["policies"].items():
        figures = figures["until_loop"]
        lines.append(
            f"  {label}: speed-up {_cell(figures['speedup'], '.3f')}, "
            f"exit layer {_cell(figures['mean_exit_layer'], '.2f')}, "
            f"agreement {_cell(figures['agreement'], '.1%')}; "
            f"{figures['answers_that_loop']} of {report['prompts']} answers repeat themselves"
        )
    return "\n".join(lines)
