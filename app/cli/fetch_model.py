"""Models that are not here yet: the question before the first use, and the progress of a pull in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from specee.app import formatting, memory, paths
from specee.app.cli.confirm import can_ask
from specee.app.cli.progress_line import ProgressLine
from specee.models import resolve, source
from specee.models.download import Plan
from specee.models.transfer import TransferProgress


def ensure(model: str | None, *, offline: bool, yes: bool, data_dir: str | None = None, answers: bool = True) -> None:
    """Makes the model be here, its header hold together, and be one that can answer (`answers`; else: or draft), before
    anything is started for it.

    A model that must be fetched first is fetched after a question with its size, without one if `yes`. Raises errors
    with a title and a message; where nobody can be asked, that the model is missing.
    """
    from specee.models import download, gguf_header, hub, hub_settings
    from specee.models.model_kind import check_answers

    hub_settings.check()  # also where no connection is needed: who set one should know
    try:
        path = resolve.resolve(model).path
    except resolve.NotHere as missing:
        if offline or hub.is_offline():
            raise hub.offline_error(missing.wanted.name) from None
        if not (yes or can_ask()):
            raise
        plan = download.prepare(missing.wanted.name)
        assert plan is not None
        if not (yes or click.confirm(question(plan), err=True)):
            raise
        path = fetch(plan, data_dir)
    header = gguf_header.read_model(path)
    if answers:
        check_answers(header)


def question(plan: Plan) -> str:
    """What somebody who says yes should know."""
    size = formatting.size
    entry = resolve.interpret(plan.name).entry
    licence = f", {entry.licence}" if entry is not None else ""
    begun = f", {size(plan.total - plan.missing)} of it are here" if plan.missing < plan.total else ""
    free = memory.free_ram()
    warning = "" if free is None or plan.total < free else f"; it will not fit into the {size(free)} of memory free now"
    return f"{plan.name} is not here yet. Fetch {size(plan.total)} ({plan.source.repo}{licence}{begun}{warning})?"


def fetch(plan: Plan, data_dir: str | None) -> Path:
    """Pulls with a line of progress on standard error; Ctrl+C (click.Abort) leaves what has come for the next time."""
    from specee.models import download, file_hash

    step = f"fetching {plan.name}, {formatting.size(plan.missing)}"
    with ProgressLine() as line:

        def show(progress: TransferProgress) -> None:
            line.show(step, formatting.transfer(progress))

        try:
            path = download.fetch(plan, show)
        except KeyboardInterrupt:
            line.clear()
            print("stopped; what has come is kept, and the same command goes on from there", file=sys.stderr)
            raise click.Abort from None
    for name, file in zip(source.parts(path.name), plan.files, strict=True):
        file_hash.remember(path.with_name(name), file.sha256, paths.find(data_dir).cache)
    return path
