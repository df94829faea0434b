"""`specee-chat bench`: how fast the policies are, and what they do to the text."""

from __future__ import annotations

from typing import Any

import click

from specee.app import options as opts
from specee.app import output_file, settings
from specee.app.cli.command import Command
from specee.app.cli.option import Setting, option
from specee.app.cli.output import show
from specee.app.cli.shared_options import (
    DRAFTING,
    ENGINE,
    EVERYWHERE,
    EXITS,
    JSON,
    NO_CHATS,
    SYSTEM,
    check_policy_options,
    given_sampling,
    load_options,
    max_tokens,
    policy_choice,
    sampling,
)
from specee.app.errors import INTERRUPTED, OK, USAGE, AppError

MAX_TOKENS = 128


@click.command(
    cls=Command,
    params=[
        max_tokens(MAX_TOKENS),
        SYSTEM,
        *ENGINE,
        *DRAFTING,
        NO_CHATS,
        *EXITS,
        *sampling(opts.PLAIN_GREEDY),
        *EVERYWHERE,
        JSON,
    ],
)
@option(
    "--prompts",
    metavar="FILE.jsonl",
    help='Ask what is in this file: {"prompt": "..."} on each line, with "category" and "id" where wanted.',
    otherwise="eight questions of ours",
)
@option(
    "--policies",
    otherwise="dense,auto; also exact,specee for a calibrated model",
    metavar="A,B,..",
    help="What to compare: auto, chain, dense, exact, pipelined, specee, tree; in short also specee@0.5 or "
    "exact:margin (see specee-chat -h).",
)
@option("--limit", type=Setting(settings.Count), metavar="N", help="Ask the first N prompts only.", otherwise="all")
@option(
    "--repeats",
    type=Setting(settings.Count),
    default=1,
    otherwise=1,
    metavar="N",
    help="Ask all prompts N times; each time the policies start without what they learned.",
)
@option(
    "--stock",
    metavar="PYTHON",
    help="Compare with unpatched llama.cpp, too: an interpreter whose environment has llama-cpp-python as it comes, of "
    "the same version.",
)
@option("--markdown", "as_markdown", is_flag=True, help="Print the tables as Markdown, for a README.")
@option("--svg", metavar="FILE", help="Draw the speeds in this file, too; it must be new.")
def bench(
    prompts: str | None,
    policies: str | None,
    limit: int | None,
    repeats: int,
    stock: str | None,
    as_markdown: bool,
    svg: str | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Compare the policies: how fast they are, and their text.

    A policy is a way to compute tokens: dense sends each of them through all layers of the model, one after the other,
    the others draft several at once or let tokens skip layers. All answer the same prompts in turn, and each is
    compared with dense. Ctrl+C prints what was measured so far.

    \b
    specee-chat bench
    specee-chat bench --model qwen2.5-1.5b --policies chain,exact:margin
    specee-chat bench --prompts questions.jsonl --json > figures.json
    specee-chat bench --stock other-venv/bin/python --markdown --svg speed.svg
    """
    from specee.app.bench.prompts import Asked, read_prompts
    from specee.app.cli import bench_tables
    from specee.app.cli.task import run_task
    from specee.app.engine.protocol import Bench

    if as_json and as_markdown:
        raise AppError("usage", "--json and --markdown exclude each other", USAGE)
    if svg is not None:
        output_file.check(svg)
    chosen = given_sampling(values, opts.PLAIN_GREEDY)
    task = Bench(
        load_options(values),
        tuple(read_prompts(prompts)[:limit]),
        _choices(values, policies),
        Asked(chosen, values["max_tokens"] or MAX_TOKENS, values["system"], repeats),
        stock,
    )
    so_far: list[dict[str, Any]] = []
    code = OK
    try:
        report = run_task(task, on_part=so_far.append)
    except KeyboardInterrupt:
        if not so_far:
            raise
        report, code = so_far[-1], INTERRUPTED
    show(report, as_json, bench_tables.markdown if as_markdown else bench_tables.text)
    if svg is not None:
        from specee.app.bench import plot

        output_file.write(svg, plot.svg(report))
    return code


def _choices(values: dict[str, Any], policies: str | None) -> tuple[opts.PolicyChoice, ...] | None:
    """None: the default ones, which take no options."""
    if policies is None:
        check_policy_options([opts.PolicyChoice("dense"), opts.PolicyChoice("auto")])
        return None
    choices = tuple(policy_choice(values, spec) for spec in policies.split(",") if spec.strip())
    if not choices:
        raise AppError("nothing to compare", f"--policies {policies!r} names no policy", USAGE)
    check_policy_options(choices)
    return choices
