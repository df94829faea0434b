"""Models that are not here yet: the question before the first use, and the progress of a pull in the terminal."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from specee.app import memory, paths
from specee.app.errors import MODEL_MISSING, AppError
from specee.models import resolve
from specee.models.download import Plan
from specee.models.transfer import Progress

REDRAW_SECONDS = 0.1


def ensure(model: str | None, *, offline: bool, yes: bool, data_dir: str | None = None) -> None:
    """Makes the model be here, and its header hold together, before anything is started for it.

    A model that must be fetched first is fetched after a question with its size, without one if `yes`. Raises errors
    with a title and a message; where nobody can be asked, that the model is missing.
    """
    from specee.models import download, gguf_header, hub

    try:
        path = resolve.resolve(model).path
    except resolve.NotHere as missing:
        if offline or hub.is_offline():
            why = f"{missing.wanted.name} is not on this machine, and nothing is fetched offline"
            raise AppError(missing.title, why, MODEL_MISSING) from None
        if not (yes or _somebody_there()):
            raise
        plan = download.prepare(missing.wanted.name)
        assert plan is not None
        if not (yes or click.confirm(question(plan), err=True)):
            raise
        path = fetch(plan, data_dir)
    gguf_header.read_model(path)


def question(plan: Plan) -> str:
    """What somebody who says yes should know."""
    entry = resolve.interpret(plan.name).entry
    licence = f", {entry.licence}" if entry is not None else ""
    begun = f", {size(plan.total - plan.missing)} of it are here" if plan.missing < plan.total else ""
    free = memory.free_ram()
    warning = "" if free is None or plan.total < free else f"; it will not fit into the {size(free)} of memory free now"
    return f"{plan.name} is not here yet. Fetch {size(plan.total)} ({plan.source.repo}{licence}{begun}{warning})?"


def fetch(plan: Plan, data_dir: str | None) -> Path:
    """Pulls with a line of progress on standard error; Ctrl+C (click.Abort) leaves what has come for the next time."""
    from specee.models import download, model_file

    line = _Line(plan.name)
    try:
        path = download.fetch(plan, line.show)
    except KeyboardInterrupt:
        line.clear()
        print("stopped; what has come is kept, and the same command goes on from there", file=sys.stderr)
        raise click.Abort from None
    finally:
        line.clear()
    if len(plan.files) == 1:
        model_file.remember(path, plan.files[0].sha256, paths.find(data_dir).cache)
    return path


def size(n_bytes: float) -> str:
    """Bytes for people, in decimal units as hubs and disks have them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


def describe(progress: Progress) -> str:
    """Progress as a line."""
    parts = [f"{progress.fraction:4.0%}", f"{size(progress.done)} of {size(progress.total)}"]
    if progress.rate is not None and progress.eta is not None:
        minutes, seconds = divmod(round(progress.eta), 60)
        parts += [f"{size(progress.rate)}/s", f"{minutes}:{seconds:02} left"]
    return "  ".join(parts)


def _somebody_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


class _Line:
    """One line that is rewritten on a terminal; elsewhere a single one at the beginning."""

    def __init__(self, name: str) -> None:
        self._name, self._terminal = name, sys.stderr.isatty()
        self._shown_at: float | None = None

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._terminal and (self._shown_at is None or now - self._shown_at >= REDRAW_SECONDS):
            sys.stderr.write(f"\r\x1b[2K{self._name}  {describe(progress)}")
            sys.stderr.flush()
        elif not self._terminal and self._shown_at is None:
            print(f"fetching {self._name}, {size(progress.total - progress.done)}", file=sys.stderr)
        else:
            return
        self._shown_at = now

    def clear(self) -> None:
        if self._terminal and self._shown_at is not None:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown_at = None
