"""Options that all commands share, and what they mean. The later one wins: after a command, before it, config.toml."""

from __future__ import annotations

from typing import Any

import click

from specee.app import options as opts
from specee.app import paths
from specee.app.cli import config

_POLICY_HELP = "auto (default), dense, exact or specee; in short also specee@0.5, specee:margin, specee:settle."


def _read_config(context: click.Context, _: click.Parameter, data_dir: str | None) -> str | None:
    """Before the other options are looked at: config.toml has their defaults."""
    if context.parent is None and not context.resilient_parsing:
        names = {str(parameter.name) for parameter in COMMON} | MORE_SETTINGS
        found = config.read(paths.find(data_dir).config, names - {"data_dir"})
        context.default_map = found.defaults
        context.meta[PERSONAS] = found.personas
    return data_dir


COMMON: list[click.Parameter] = [
    click.Option(
        ["--model"], metavar="M", help="A .gguf file, a name, or hf:owner/repo (default: the embedded model)."
    ),
    click.Option(["--policy"], metavar="NAME", help=_POLICY_HELP),
    click.Option(["--max-tokens"], type=click.IntRange(1), metavar="N", help="Longest answer."),
    click.Option(["--temperature"], type=click.FloatRange(0), metavar="T", help="0 is greedy."),
    click.Option(["--repeat-penalty"], type=click.FloatRange(0, min_open=True), metavar="R", help="1 is none."),
    click.Option(["--top-k"], type=click.IntRange(0), metavar="N", help="0 is all."),
    click.Option(["--top-p"], type=click.FloatRange(0, 1), metavar="P", help="1 is all."),
    click.Option(["--min-p"], type=click.FloatRange(0, 1), metavar="P", help="0 is all."),
    click.Option(["--seed"], type=click.IntRange(0), metavar="N", help="The same seed gives the same answer."),
    click.Option(["--system"], metavar="TEXT", help="System message."),
    click.Option(["--ctx"], type=click.IntRange(16), metavar="N", help="Window in tokens."),
    click.Option(["--threads"], type=click.IntRange(1), metavar="N", help="CPU threads."),
    click.Option(["--gpu-layers"], type=click.IntRange(0), metavar="N", help="Layers on the GPU."),
    click.Option(["--threshold"], metavar="X", help="Exit above this score: 0 to 1, or calibrated (default)."),
    click.Option(["--rule"], type=click.Choice(opts.RULES), help="What decides on an exit."),
    click.Option(["--kv"], type=click.Choice(opts.KV_FILLS), help="K and V of skipped layers (policy specee)."),
    click.Option(["--max-pending"], type=click.IntRange(1, 7), metavar="N", help="Rows that wait to be verified."),
    click.Option(["--offline"], is_flag=True, default=None, help="Never use a network."),
    click.Option(["--yes"], is_flag=True, default=None, help="Fetch a model that is not here without asking."),
    click.Option(
        ["--data-dir"], metavar="DIR", is_eager=True, callback=_read_config, help="Keep all files in this folder."
    ),
]

MORE_SETTINGS = {"persona", "when_full", "no_history", "stats"}
"""Options of the program alone that config.toml may set."""

PERSONAS = "specee.personas"
"""Where a click context has the personas of config.toml."""

Values = dict[str, Any]


def merged(context: click.Context, values: Values) -> Values:
    """The common options of a subcommand, filled up from those before it."""
    before: Values = context.parent.obj if context.parent is not None and context.parent.obj else {}
    return {name: value if value is not None else before.get(name) for name, value in values.items()}


def load_options(values: Values) -> opts.LoadOptions:
    """What concerns the model and the machine. The model is here then: it may have been fetched first."""
    from specee.app.cli import fetch_model

    offline = bool(values["offline"])
    fetch_model.ensure(values["model"], offline=offline, yes=bool(values["yes"]), data_dir=values["data_dir"])
    return opts.LoadOptions(
        model=values["model"],
        n_ctx=values["ctx"],
        threads=values["threads"],
        gpu_layers=values["gpu_layers"] or 0,
        data_dir=values["data_dir"],
        offline=offline,
    )


def policy_choice(values: Values, spec: str | None = None) -> opts.PolicyChoice:
    """The policy of --policy (or `spec`) with --threshold, --rule, --kv and --max-pending."""
    choice = opts.PolicyChoice.parse(spec or values["policy"] or "auto")
    threshold = choice.threshold
    if values["threshold"] is not None:
        threshold = opts.parse_threshold(values["threshold"])
    return opts.PolicyChoice(
        choice.name, threshold, values["rule"] or choice.rule, values["kv"] or choice.kv, values["max_pending"]
    )


def chat_options(values: Values, base: opts.ChatOptions = opts.DEFAULT_CHAT) -> opts.ChatOptions:
    """What concerns an answer: `base` with what is given."""
    names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")
    given = {name: values[name] for name in names if values[name] is not None}
    policy = policy_choice(values, values["policy"] or base.policy.label)
    sampling = opts.replace_sampling(base.sampling, given)
    return opts.ChatOptions(policy, sampling, values["max_tokens"] or base.max_tokens)


def to_json(content: object) -> str:
    """One line of JSON."""
    import json

    return json.dumps(content, ensure_ascii=False)
