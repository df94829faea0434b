"""The program: its commands, what it does without one, and the boundary where every error becomes one line.

Heavy modules are imported where they are used, so that it starts at once.
"""

from __future__ import annotations

import sys
from typing import Any

import click
from click.core import ParameterSource

from specee.app import settings
from specee.app.cli import config, streams, usage_errors
from specee.app.cli.bench import bench
from specee.app.cli.calibrate import calibrate
from specee.app.cli.command import Group
from specee.app.cli.completions import PROGRAM, VARIABLE, completions
from specee.app.cli.doctor import doctor
from specee.app.cli.history import history
from specee.app.cli.models import models
from specee.app.cli.option import Setting, option
from specee.app.cli.paths import paths
from specee.app.cli.serve import serve
from specee.app.cli.shared_options import ANSWER, CHAT, CHATS, PERSONAS, SCRIPTS, chat_options
from specee.app.cli.train import train
from specee.app.cli.worker import worker
from specee.app.errors import FAILURE, INTERRUPTED, OK, USAGE, AppError, as_app_error


@click.group(
    cls=Group,
    params=list(CHAT),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@option(
    "-p",
    "prompt",
    heading=SCRIPTS,
    metavar="TEXT",
    help="Answer TEXT and exit; - is what comes in through a pipe.",
    otherwise="the terminal screen",
)
@option("--json", "as_json", heading=SCRIPTS, is_flag=True, help="Print the answer and its figures as one JSON object.")
@option("--jsonl", "as_jsonl", heading=SCRIPTS, is_flag=True, help="Print what happens as it happens, in JSON lines.")
@option("--stats", heading=SCRIPTS, is_flag=True, help="Print speed and other figures on standard error.")
@option(
    "--plain",
    heading=CHATS,
    is_flag=True,
    help="Chat in lines instead of on the screen: for screen readers and slow connections.",
    otherwise="only where the terminal cannot draw",
)
@option(
    "--ascii",
    heading=CHATS,
    type=Setting(settings.Ascii),
    otherwise="auto",
    metavar="NAME",
    help="Draw lines, bars and marks of the screen in ASCII: on, off, or auto, where the terminal cannot show others.",
)
@option(
    "--when-full",
    heading=SCRIPTS,
    type=Setting(settings.WhenFull),
    default="stop",
    otherwise="stop",
    metavar="NAME",
    help="When the chat no longer fits the context window: stop (exit code 5), drop the oldest turns, or "
    "summarize them.",
)
@option("-c", "--continue", "last", heading=CHATS, is_flag=True, help="Go on with the last chat.")
@option(
    "--resume",
    heading=CHATS,
    type=Setting(settings.ChatId),
    metavar="ID",
    help="Go on with this chat; 'specee-chat history' lists them.",
)
@option(
    "--more",
    heading=CHATS,
    is_flag=True,
    help="Print more of the last answer, which was interrupted, stopped or cut short.",
)
@option("--no-history", heading=CHATS, is_flag=True, help="Keep nothing of this chat.")
@option(
    "--persona",
    heading=ANSWER,
    type=Setting(settings.Text),
    metavar="NAME",
    help="The system message of this name in config.toml.",
)
@click.version_option(package_name="specee-chat", prog_name=PROGRAM)
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
    plain: bool,
    persona: str | None,
    when_full: str,
    no_history: bool,
    **values: Any,
) -> int:
    """Chat with a language model on this machine.

    Without a command: the terminal screen, or one answer. A small model comes with it; --model takes others. Where it
    makes answers faster, tokens that are easy to guess are tried several at once, and the model checks them all: the
    text is the model's own, unless you choose the policy specee or --acceptance typical.

    \b
    specee-chat                                 the terminal screen
    specee-chat --model llama3.2-1b             with another model, fetched at first use
    specee-chat -p "Why is the sky blue?"       one answer on standard output
    specee-chat -p "Shorten this: @notes.txt"   with the text of a file
    git diff | specee-chat --system "Review."   what comes in through a pipe is the prompt
    specee-chat -c -p "And at night?"           the last chat goes on
    specee-chat -p "..." --json | jq .text      for programs

    Options may stand before or after a command. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 model missing or
    unusable, 4 a download failed, 5 the prompt does not fit, 130 Ctrl+C.
    """
    if context.invoked_subcommand is not None:
        return OK
    config.check(context)
    if as_json and as_jsonl:
        raise AppError("usage", "--json and --jsonl exclude each other", USAGE)
    if last and resume is not None:
        raise AppError("usage", "-c and --resume exclude each other", USAGE)
    typed = context.get_parameter_source("plain") is ParameterSource.COMMANDLINE  # of config.toml it is for terminals
    if plain and typed and (prompt is not None or more or as_json or as_jsonl):
        why = (
            "--plain is a chat in lines; -p, --more, --json and --jsonl print one answer, and never draw: leave one out"
        )
        raise AppError("usage", why, USAGE)
    if more and (prompt is not None or no_history):
        raise AppError("usage", "--more goes on with an answer that is kept; it takes no -p and no --no-history", USAGE)
    if not (last or more or resume is not None):  # those have options of their own
        chat_options(values)  # an error in them comes before anything is read
    from specee.app.cli.prompt_text import cannot_draw, on_a_terminal, read_prompt

    chats = prompt is None and not more and not (as_json or as_jsonl) and ((plain and typed) or on_a_terminal())
    lines = chats and (plain or cannot_draw())
    screen = chats and not lines
    asked = None if chats or more else read_prompt(prompt)
    from specee.app.cli.open_session import LAST, open_session
    from specee.app.engine.terminal_guard import SavedTerminal

    wanted = resume if resume is not None else LAST if last or more else None
    terminal = SavedTerminal.capture() if screen else None
    session, options, notice = open_session(context, values, persona, wanted, keep=not no_history, terminal=terminal)
    try:
        if screen:
            from specee.app.tui.ascii_filter import choose
            from specee.app.tui.run import run_tui

            shown = choose(values["ascii"] or "auto")
            return run_tui(session, options, context.meta.get(PERSONAS, {}), notice, shown)
        if lines:
            from specee.app.plain.chat import PlainChat

            return PlainChat(session, options, context.meta.get(PERSONAS, {}), stats=stats).run(notice)
        from specee.app.cli.one_answer import ask

        for known in [notice, *(asked.doubts if asked is not None else [])]:
            if known is not None:
                _complain(known)
        if stats and asked is not None and asked.files:
            print("attached: " + ", ".join(map(str, asked.files)), file=sys.stderr)
        form = "json" if as_json else "jsonl" if as_jsonl else "text"
        text, attached = (asked.text, asked.attached) if asked is not None else (None, "")
        return ask(session, text, options, form, stats, when_full, attached)
    finally:
        session.close()
        session.store.close()


for _command in (models, history, calibrate, train, bench, serve, worker, doctor, paths, completions):
    program.add_command(_command)


def run() -> int:
    """The program: every error becomes one line on standard error and an exit code."""
    streams.prepare()
    code = _run()
    streams.finish()
    return code


def _run() -> int:
    try:
        code = program.main(prog_name=PROGRAM, complete_var=VARIABLE, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except click.ClickException as error:
        _complain(usage_errors.as_app_error(error).line)
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return FAILURE  # whoever read our output has gone
    except Exception as error:
        failure = as_app_error(error)
        _complain(failure.line + ("; --cpu-fallback goes on without it" if failure.of_device else ""))
        return failure.exit_code


def _complain(line: str) -> None:
    print(f"{PROGRAM}: {' '.join(line.split())}", file=sys.stderr)
