"""`specee-chat train`: a draft head for one model, made by the model itself."""

from __future__ import annotations

import sys
from typing import Any

import click

from specee.app import output_file, paths, settings, training_data
from specee.app.cli.command import Command
from specee.app.cli.option import Setting, option
from specee.app.cli.output import show
from specee.app.cli.shared_options import EVERYWHERE, JSON, MACHINE, NO_CHATS, load_options, seed
from specee.app.formatting import size


@click.command(cls=Command, params=[*MACHINE, NO_CHATS, seed(0), *EVERYWHERE, JSON])
@option(
    "--tokens",
    type=Setting(settings.TrainingTokens),
    metavar="N",
    help="Learn from N tokens of conversations; more take longer and teach more.",
    otherwise="400000",
)
@option(
    "--minutes",
    type=Setting(settings.Minutes),
    metavar="N",
    help="Talk for at most N minutes, and train for at most N.",
    otherwise="60, and 90",
)
@option(
    "--output",
    metavar="FILE",
    help="Write the head to FILE, which must be new, instead of where chats with this model find it.",
)
def train(tokens: int | None, minutes: float | None, output: str | None, as_json: bool, **values: Any) -> int:
    """Make a draft head for a model, which makes its answers faster.

    A draft head is a small part that guesses the model's next tokens; the model then tries several at once, and keeps
    those that are its own. The model talks to itself and reads your chats (--no-chats: not), and the head learns from
    what it computes meanwhile: no data set is needed, and nothing leaves this machine. This takes an hour or more, and
    PyTorch (pip install torch); 'specee-chat calibrate' does without it. Interrupted, it goes on the next time; with
    more --tokens it goes on from what it has.

    \b
    specee-chat train --model qwen2.5-1.5b
    specee-chat bench --model qwen2.5-1.5b        what it brings
    """
    from specee.app.cli.task import run_task
    from specee.app.engine.protocol import Train

    if output is not None:
        output_file.check_new(output)
    task = Train(load_options(values), tokens, minutes, values["seed"] or 0, output)
    try:
        result = run_task(task)
    except KeyboardInterrupt:
        print("\nwhat was recorded is kept: the same command goes on from there", file=sys.stderr)
        raise
    finally:
        training_data.forget_chats(paths.find(task.load.data_dir).cache)
    return show(result, as_json, summary)


BETTER = "\nthe one that is there is right more often, and stays: {path}"
TOO_FEW = "\nthat is too few to make answers faster, so it is not used yet: train it with more --tokens"


def summary(result: dict[str, Any]) -> str:
    """What a user wants to know at the end."""
    first, *later = (f"{rate:.0%}" for rate in result["acceptance"])
    learned = (
        f"trained on {result['tokens']} tokens of {result['conversations']} conversations: of its first guesses "
        f"{first} are right, of the next ones {' and '.join(later)}; {result['tokens_per_step']:.2f} tokens a step"
    )
    if not result["is_written"]:
        return learned + BETTER.format(path=result["path"])
    written = f"\nwritten to {result['path']} ({size(result['bytes'])})"
    return learned + written + ("" if result["is_worth_using"] else TOO_FEW)
