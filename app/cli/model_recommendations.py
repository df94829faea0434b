"""`models recommend`: which model to take on this machine, as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from specee.app.cli import tables
from specee.app.formatting import size
from specee.app.recommend.machine import Machine
from specee.app.recommend.recommendation import Recommendation
from specee.app.settings import Purpose

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
        speed = f"; a token reads {size(machine.speed.rates[MAIN_TYPE])} of weights a second"
    lines = [f"This machine: {machine.threads} threads, {free}{gpus}{speed}"]
    if machine.busy:
        lines.append("Other programs keep it busy: models are faster when they do not.")
    if machine.problem is not None:
        lines.append(f"Its speed could not be measured: {machine.problem}")
    return lines


def _table(shown: list[Recommendation]) -> str:
    columns = [
        tables.Column("NAME", rigid=False),
        tables.Column("BEST FOR"),
        tables.Column("SIZE", right=True),
        tables.Column("MEMORY", right=True),
        tables.Column("TOKENS/S", right=True),
        tables.Column("DENSE", right=True),
        *([tables.Column("MEASURED", right=True)] if any(one.measured for one in shown) else []),
        tables.Column("FITS"),
        tables.Column("HERE"),
        tables.Column("LICENCE", rigid=False),
    ]
    return tables.table(columns, (_row(one, len(columns) == 10) for one in shown))


def _row(one: Recommendation, with_measured: bool) -> list[str]:
    fits = "on the GPU" if one.place == "GPU" else "in memory"
    return [
        one.name,
        ", ".join(one.best_for),
        size(one.file_bytes),
        size(one.memory_bytes),
        _rate(one.expected_with_drafts),
        _rate(one.expected),
        *([_rate(one.measured) if one.measured else ""] if with_measured else []),
        fits,
        one.where or "-",
        one.licence,
    ]


def _rate(tokens_per_second: float | None) -> str:
    if tokens_per_second is None:
        return "?"
    return f"{tokens_per_second:.0f}" if tokens_per_second >= 9.95 else f"{tokens_per_second:.1f}"


def _advice(fitting: list[Recommendation], purpose: Purpose) -> list[str]:
    if not fitting:
        return ["No model fits into the memory that is free; close other programs, or take a smaller --ctx."]
    first = next((one for one in fitting if purpose in one.best_for), fitting[0])
    return [f"Take {first.name}: it is {first.why}.", *(f"  {command}" for command in first.commands)]
