"""The command line. Heavy modules are imported where they are used, so that it starts at once."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from specee.app import options as opts
from specee.app.cli.history import history
from specee.app.cli.models import models
from specee.app.cli.shared_options import COMMON, PERSONAS, chat_options, load_options, merged, policy_choice, to_json
from specee.app.errors import FAILURE, INTERRUPTED, OK, USAGE, AppError, as_app_error

PROGRAM, COMPLETE_VARIABLE = "specee-chat", "_SPECEE_CHAT_COMPLETE"

_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(params=list(COMMON), invoke_without_command=True, context_settings=_HELP)
@click.option("-p", "prompt", metavar="TEXT", help="Answer TEXT and exit (default: the terminal screen).")
@click.option("-c", "--continue", "last", is_flag=True, help="Go on with the last chat.")
@click.option("--resume", type=int, metavar="ID", help="Go on with this chat; specee-chat history lists them.")
@click.option("--more", is_flag=True, help="Print more of the last answer: it was interrupted, stopped or cut short.")
@click.option("--json", "as_json", is_flag=True, help="With -p: print one JSON object.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="With -p: print events as JSON lines.")
@click.option("--stats", is_flag=True, help="With -p: print figures on standard error.")
@click.option("--persona", metavar="NAME", help="System message from [personas] in config.toml.")
@click.option(
    "--when-full",
    type=click.Choice(opts.WHEN_FULL),
    default="stop",
    show_default=True,
    help="With -p, when the window is full: stop (exit code 5), drop the oldest turns, or summarize them.",
)
@click.option("--no-history", is_flag=True, help="Keep nothing of this.")
@click.version_option(package_name="specee-chat", prog_name="specee-chat")
@click.pass_context
def program(
    context: click.Context,
    /,
    prompt: str | None,
    last: bool,
    resume: int | None,
    more: bool,
    as_json: bool,
    as_jsonl: bool,
    stats: bool,
    persona: str | None,
    when_full: str,
    no_history: bool,
    **values: Any,
) -> int:
    """Chat with a language model on this machine; words may leave the model's layers early.

    \b
    specee-chat                                 the terminal screen
    specee-chat -p "Why is the sky blue?"       one answer on standard output
    specee-chat -p "Shorten this: @notes.txt"   with the text of a file
    git diff | specee-chat --system "Review."   what comes in through a pipe is the prompt
    specee-chat -c -p "And at night?"           the last chat goes on
    specee-chat --more                          its last answer goes on
    specee-chat -p "..." --json | jq .text      for programs

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 model missing, 4 download failed,
    5 the prompt does not fit, 130 Ctrl+C.
    """
    context.obj = values
    if context.invoked_subcommand is not None:
        return OK
    if as_json and as_jsonl:
        raise AppError("usage", "--json and --jsonl exclude each other", USAGE)
    if last and resume is not None:
        raise AppError("usage", "-c and --resume exclude each other", USAGE)
    if more and (prompt is not None or no_history):
        raise AppError("usage", "--more goes on with an answer that is kept; it takes no -p and no --no-history", USAGE)
    chat_options(values)  # what is wrong with them is told before anything is read
    screen = prompt is None and not more and _on_a_terminal() and not (as_json or as_jsonl)
    attached: list[Any] = []
    if not screen and not more:
        prompt, attached = _prompt(prompt)
    from specee.app.cli.open_session import LAST, open_session
    from specee.app.engine.terminal_guard import SavedTerminal

    wanted = resume if resume is not None else LAST if last or more else None
    terminal = SavedTerminal.capture() if screen else None
    session, options = open_session(context, values, persona, wanted, keep=not no_history, terminal=terminal)
    try:
        if screen:
            from specee.app.tui.app import run_tui

            return run_tui(session, options, context.meta.get(PERSONAS, {}))
        from specee.app.cli.one_answer import ask

        if stats and attached:
            print("attached: " + ", ".join(map(str, attached)), file=sys.stderr)
        form = "json" if as_json else "jsonl" if as_jsonl else "text"
        return ask(session, prompt, options, form, stats, when_full)
    finally:
        session.close()
        session.store.close()


def _on_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _prompt(given: str | None) -> tuple[str, list[Any]]:
    """The text to answer and the files attached to it; what comes through a pipe is left as it is."""
    from specee.app.chat.attachments import attach

    text, files = attach(given) if given is not None else (_piped_prompt(), [])
    if not text.strip():
        raise AppError("nothing to answer", "the prompt is empty; give -p TEXT, or text on standard input", USAGE)
    return text, files


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
    from specee.app.engine.tasks import calibration_summary, run_task

    values = merged(context, values)
    arguments = {"tokens": tokens, "seed": values["seed"] or 0, "output": output}
    result = run_task("calibrate", load_options(values), arguments)
    click.echo(to_json(result) if as_json else calibration_summary(result))
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
    from specee.app.engine.tasks import run_task

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
    click.echo(to_json(report) if as_json else table(report))
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
        click.echo(to_json(found))
    else:
        for name, path in found.items():
            click.echo(f"{name:10} {path}")
    return OK


@program.command(params=list(COMMON))
@click.option("--quick", is_flag=True, help="Without loading a model.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(context: click.Context, /, quick: bool, as_json: bool, **values: Any) -> int:
    """Check this machine and this installation: a line each, OK or NOT OK."""
    from dataclasses import asdict

    from specee.app.cli.doctor import checks

    found = []
    for check in checks(load_options(merged(context, values)), quick=quick):
        found.append(check)
        if not as_json:
            click.echo(f"{'OK    ' if check.ok else 'NOT OK'}  {check.name:12} {check.detail}")
    well = all(check.ok for check in found)
    if as_json:
        click.echo(to_json({"ok": well, "checks": [asdict(check) for check in found]}))
    return OK if well else FAILURE


@program.command(params=list(COMMON))
@click.option("--port", type=click.IntRange(0, 65535), default=8350, show_default=True, help="0 takes a free one.")
@click.pass_context
def serve(context: click.Context, /, port: int, **values: Any) -> int:
    """Serve the model to other programs: the OpenAI chat completions API on 127.0.0.1, an answer at a time."""
    from specee.app.serve.server import serve as run

    values = merged(context, values)
    run(load_options(values), chat_options(values), port)
    return OK


@program.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completions(shell: str) -> int:
    """Print what makes a shell complete our commands.

    \b
    bash  eval "$(specee-chat completions bash)"          in ~/.bashrc
    zsh   eval "$(specee-chat completions zsh)"           in ~/.zshrc
    fish  specee-chat completions fish | source           in config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(program, {}, PROGRAM, COMPLETE_VARIABLE).source())
    return OK


program.add_command(history)


def main() -> None:
    """The program: every error becomes one line on standard error and an exit code."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = program.main(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False)
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
