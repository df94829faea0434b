"""`specee-chat calibrate`: learn for one model when its tokens may skip layers."""

from __future__ import annotations

from typing import Any

import click

from specee.app import output_file, settings
from specee.app.cli.command import Command
from specee.app.cli.option import Setting, option
from specee.app.cli.output import show
from specee.app.cli.shared_options import ENGINE, EVERYWHERE, JSON, load_options, seed


@click.command(cls=Command, params=[*ENGINE, seed(0), *EVERYWHERE, JSON])
@option(
    "--tokens",
    type=Setting(settings.CalibrationTokens),
    metavar="N",
    help="Learn from N tokens of the model's own answers; more take longer and teach more.",
    otherwise="24000, or what 25 minutes allow",
)
@option(
    "--output",
    metavar="FILE",
    help="Write the calibration to FILE, which must be new, instead of where chats with this model find it.",
)
def calibrate(tokens: int | None, output: str | None, as_json: bool, **values: Any) -> int:
    """Teach specee-chat when a model is sure of its next token.

    Such tokens can skip the model's last layers, which may make answers faster. The model answers questions that come
    with specee-chat, and what it does meanwhile is recorded and learned from. This takes minutes, half an hour for
    larger models, and is needed once for each model file; the model that comes with specee-chat is calibrated already.
    Interrupted, it goes on the next time.

    \b
    specee-chat calibrate --model qwen2.5-1.5b
    specee-chat bench --model qwen2.5-1.5b        whether it pays
    """
    from specee.app.cli.task import run_task
    from specee.app.engine.protocol import Calibrate

    if output is not None:
        output_file.check_new(output)
    task = Calibrate(load_options(values), tokens, values["seed"] or 0, output)
    return show(run_task(task), as_json, summary)


def summary(result: dict[str, Any]) -> str:
    """What a user wants to know at the end."""
    layers = ", ".join(str(layer) for layer in result["exit_layers"])
    return (
        f"calibrated: tokens that the model is sure of may stop after layers {layers}; "
        f"threshold {result['threshold']:.3f}, for {result['target_agreement']:.0%} agreement with all layers\n"
        f"written to {result['path']}"
    )
