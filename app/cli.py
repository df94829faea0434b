"""The command line. Heavy modules are imported where they are used, so that it starts at once."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from specee.app import options as opts
from specee.app.errors import FAILURE, INTERRUPTED, OK, USAGE, AppError, as_app_error
from specee.app.models_cli import models

_POLICY_HELP = "auto (default), dense, exact or specee; in short also specee@0.5, specee:margin, specee:settle."

# these may stand before or after a subcommand; the later one wins
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
    click.Option(["--max-pending"], type=click.IntRange(1, 32), metavar="N", help="Rows that wait to be verified."),
    click.Option(["--offline"], is_flag=True, default=None, help="Never use a network."),
    click.Option(["--yes"], is_flag=True, default=None, help="Fetch a model that is not here without asking."),
    click.Option(["--data-dir"], metavar="DIR", help="Keep all files in this folder."),
]

Values = dict[str, Any]


def merged(context: click.Context, values: Values) -> Values:
    """The common options of a subcommand, filled up from those before it."""
    before: Values = context.parent.obj if context.parent is not None and context.parent.obj else {}
    return {name: value if value is not None else before.get(name) for name, value in values.items()}


def load_options(values: Values) -> opts.LoadOptions:
    """What concerns the model and the machine. The model is here then: it may have been fetched first."""
    from specee.app import fetching

    offline = bool(values["offline"])
    fetching.ensure(values["model"], offline=offline, yes=bool(values["yes"]), data_dir=values["data_dir"])
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


def chat_options(values: Values) -> opts.ChatOptions:
    """What concerns an answer."""
    names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")
    sampling = opts.Sampling(**{name: values[name] for name in names if values[name] is not None})
    return opts.ChatOptions(policy_choice(values), sampling, values["max_tokens"] or opts.ChatOptions.max_tokens)


@click.group(params=list(COMMON), invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-p", "prompt", metavar="TEXT", help="Answer TEXT and exit (default: the terminal screen).")
@click.option("--json", "as_json", is_flag=True, help="With -p: print one JSON object.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="With -p: print events as JSON lines.")
@click.option("--stats", is_flag=True, help="With -p: print figures on standard error.")
@click.version_option(package_name="specee-chat", prog_name="specee-chat")
@click.pass_context
def program(
    context: click.Context, /, prompt: str | None, as_json: bool, as_jsonl: bool, stats: bool, **values: Any
) -> int:
    """Chat with a language model on this machine; words may leave the model's layers early."""
    context.obj = values
    if context.invoked_subcommand is not None:
        return OK
    if as_json and as_jsonl:
        raise AppError("usage", "--json and --jsonl exclude each other", USAGE)
    options = chat_options(values)
    if prompt is None:
        if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty() and not (as_json or as_jsonl):
            from specee.app.tui.app import run_tui

            return run_tui(load_options(values), options, values["system"])
        prompt = _piped_prompt()
    if not prompt.strip():
        raise AppError("nothing to answer", "the prompt is empty; give -p TEXT, or text on standard input", USAGE)
    from specee.app.ask import ask
    from specee.app.session import Session

    session = Session(load_options(values), values["system"])
    try:
        return ask(session, prompt, options, "json" if as_json else "jsonl" if as_jsonl else "text", stats)
    finally:
        session.close()


def _piped_prompt() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise AppError("no terminal", "the screen needs a terminal; for one answer give -p TEXT", USAGE)
    return sys.stdin.read()


@program.command(params=list(COMMON))
@click.option("--tokens", type=click.IntRange(500), metavar="N", help="Learn from N tokens of the model's answers.")
@click.option("--output", metavar="FILE", help="Write the calibration there instead of where it is found again.")
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as one JSON object.")
@click.pass_context
def calibrate(context: click.Context, /, tokens: int | None, output: str | None, as_json: bool, **values: Any) -> int:
    """Learn when this model's words are certain early. Takes minutes; interrupted, it goes on the next time."""
    from specee.app.tasks import calibration_summary, run_task

    values = merged(context, values)
    arguments = {"tokens": tokens, "seed": values["seed"] or 0, "output": output}
    result = run_task("calibrate", load_options(values), arguments)
    click.echo(_as_json(result) if as_json else calibration_summary(result))
    return OK


@program.command(params=list(COMMON))
@click.option("--prompts", metavar="FILE.jsonl", help='Prompts, one {"prompt": ...} a line (default: a few of ours).')
@click.option("--policies", default="dense,specee,exact,auto", show_default=True, metavar="A,B,..")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N prompts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def bench(
    context: click.Context, /, prompts: str | None, policies: str, limit: int | None, as_json: bool, **values: Any
) -> int:
    """Compare policies with dense: speed, and what they do to the text."""
    from specee.app.bench.prompts import read_prompts
    from specee.app.bench.report import table
    from specee.app.tasks import run_task

    values = merged(context, values)
    names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")
    given = {name: values[name] for name in names if values[name] is not None}
    arguments = {
        "prompts": read_prompts(prompts)[:limit],
        "choices": [policy_choice(values, spec) for spec in policies.split(",") if spec.strip()],
        "sampling": opts.replace_sampling(opts.PLAIN_GREEDY, given),
        "max_tokens": values["max_tokens"] or 128,
        "system": values["system"],
    }
    report = run_task("bench", load_options(values), arguments)
    click.echo(_as_json(report) if as_json else table(report))
    return OK


program.add_command(models)


@program.command("paths", params=list(COMMON))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show_paths(context: click.Context, /, as_json: bool, **values: Any) -> int:
    """Where files are kept."""
    from specee.app import paths

    found = paths.find(merged(context, values)["data_dir"]).as_dict()
    if as_json:
        click.echo(_as_json(found))
    else:
        for name, path in found.items():
            click.echo(f"{name:10} {path}")
    return OK


def _as_json(content: object) -> str:
    import json

    return json.dumps(content, ensure_ascii=False)


def main() -> None:
    """The program: every error becomes one line on standard error and an exit code."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = program.main(prog_name="specee-chat", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except click.ClickException as error:
        _complain(f"{error.format_message()} (specee-chat --help says more)")
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has gone; keep the interpreter from complaining when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        told = as_app_error(error)
        _complain(told.line)
        return told.exit_code


def _complain(line: str) -> None:
    print(f"specee-chat: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
