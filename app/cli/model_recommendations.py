"""`models recommend`: which model to take on this machine, as a table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from specee.app.cli import tables
from specee.app.formatting import size
from specee.app.recommend.machine import Machine
from specee.app.recommend.recommendation import Recommendation
from specee.app.settings import Purpose

NUMBERS = {"SIZE", "MEMORY", "TOKENS/S", "DENSE", "MEASURED"}
LEAST_FIRST = ("FITS", "DENSE", "LICENCE", "MEASURED", "SIZE", "HERE", "MEMORY", "BEST FOR")
LONGEST_NAME = 40
SHOWN = 8  # models, besides those that are here or the best for something
MAIN_TYPE = "Q4_K"


def as_dict(machine: Machine, found: tuple[Recommendation, ...]) -> dict[str, Any]:
    """For programs: everything, of all models."""
    return {"machine": asdict(machine), "models": [one.as_dict() for one in found]}


def text(machine: Machine, found: tuple[Recommendation, ...], purpose: Purpose, every: bool) -> str:
    """What to take first, the others that fit, what does not fit, and how to start."""
    fitting = [one for one in found if one.fits]
    shown = [one for i, one in enumerate(fitting) if every or i < SHOWN or one.best_for or one.here]
    parts = ["\n".join(_machine(machine))]
    if shown:
        parts.append(_table(shown))
    if rest := len(fitting) - len(shown):
        parts.append(f"{rest} more fit: specee-chat models recommend --all")
    if left := [one for one in found if not one.fits]:
        parts.append("\n".join(["Does not fit:", tables.pairs((f"  {one.name}", one.why) for one in left)]))
    parts.append("\n".join(_advice(fitting, purpose)))
    return "\n\n".join(parts)


def _machine(machine: Machine) -> list[str]:
    free = "memory unknown" if machine.free_ram is None else f"{size(machine.free_ram)} of memory free"
    gpus = "".join(f"; {gpu.name}, {size(gpu.free_bytes)} free" for gpu in machine.gpus)
    speed = ""
    if machine.speed is not None and MAIN_TYPE in machine.speed.rates:
        speed = f"; weights are read at {size(machine.speed.rates[MAIN_TYPE])}/s"
    lines = [f"This machine: {machine.threads} threads, {free}{gpus}{speed}"]
    if machine.busy:
        lines.append("Other programs keep it busy now: without them models are faster.")
    if machine.problem is not None:
        lines.append(f"Its speed could not be measured: {machine.problem}")
    return lines


def _table(shown: list[Recommendation]) -> str:
    """On a terminal that is too narrow, without the columns that matter least."""
    columns: dict[str, Callable[[Recommendation], str]] = {
        "NAME": lambda one: _short(one.name),
        "BEST FOR": lambda one: ", ".join(one.best_for),
        "SIZE": lambda one: size(one.file_bytes),
        "MEMORY": lambda one: size(one.memory_bytes),
        "TOKENS/S": lambda one: _rate(one.expected_with_drafts),
        "DENSE": lambda one: _rate(one.expected),
        "MEASURED": lambda one: _rate(one.measured) if one.measured else "",
        "FITS": lambda one: "GPU" if one.place == "GPU" else "memory",
        "HERE": lambda one: one.where or "-",
        "LICENCE": lambda one: one.licence,
    }
    if not any(one.measured for one in shown):
        del columns["MEASURED"]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for name in ("", *LEAST_FIRST):
        columns.pop(name, None)
        titles = [tables.Column(title, right=title in NUMBERS) for title in columns]
        drawn = tables.table(titles, ([cell(one) for cell in columns.values()] for one in shown))
        if max(map(len, drawn.splitlines())) <= width:
            break
    return drawn


def _short(name: str) -> str:
    """The end of a long path."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def _rate(tokens_per_second: float | None) -> str:
    if tokens_per_second is None:
        return "?"
    return f"{tokens_per_second:.0f}" if tokens_per_second >= 9.95 else f"{tokens_per_second:.1f}"


def _advice(fitting: list[Recommendation], purpose: Purpose) -> list[str]:
    if not fitting:
        return ["No model fits into the memory that is free; close other programs, or take a smaller --ctx."]
    first = next((one for one in fitting if purpose in one.best_for), fitting[0])
    return [f"Take {first.name}: it is {first.why}.", *(f"  {command}" for command in first.commands)]
