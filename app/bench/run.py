"""`specee-chat bench` in the engine process: the model, the unpatched library, and what is said of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from specee.app.bench.answer import Round
from specee.app.bench.prompts import Asked, BenchPrompt
from specee.app.bench.report import report
from specee.app.bench.rounds import DENSE, compare
from specee.app.engine.backend import Backend
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser
from specee.app.engine.protocol import Emit, Progress, TaskPart
from specee.app.options import LoadOptions, PolicyChoice
from specee.app.settings import PolicyName

ALWAYS: tuple[PolicyName, ...] = ("dense", "auto")
CALIBRATED: tuple[PolicyName, ...] = (*ALWAYS, "exact", "specee")


@dataclass(frozen=True)
class ComparedPolicy:
    """A row of the report: `label` is what was asked for, `choice` what runs for it (they differ for `auto`)."""

    label: str
    choice: PolicyChoice
    reason: str


def run_bench(
    load: LoadOptions,
    emit: Emit,
    prompts: Sequence[BenchPrompt],
    choices: Sequence[PolicyChoice] | None,
    asked: Asked,
    stock_python: str | None = None,
) -> dict[str, Any]:
    """The whole benchmark; returns the report (see bench.report). What is there after each round is emitted, too.

    `choices` None: those that run on the model.
    """
    from specee.app import machine, paths
    from specee.app.bench.stock import Stock
    from specee.app.engine.loading import open_backend
    from specee.native import library

    with ExitStack() as opened:
        version, stock = library.read_record(library.directory()).pin, None
        if stock_python is not None:  # first: what is wrong with it shows at once
            stock = opened.enter_context(closing(Stock(stock_python, version)))
        backend = open_backend(load, lambda what, fraction: emit(Progress(what, fraction)))
        engine, threads = backend.engine, backend.info.threads
        if stock is not None:
            emit(Progress("loading the model in the stock library"))
            window = engine.n_ctx, engine.n_batch
            stock.load(backend.info.path, *window, threads, backend.info.gpu_layers, load.kv_type, asked.sampling)
        chooser = PolicyChooser(Measurements(paths.find(load.data_dir).measurements, machine.library_build()))
        if choices is None:
            choices = [PolicyChoice(name) for name in (ALWAYS if backend.calibration is None else CALIBRATED)]
        policies = decide(backend, chooser, choices)
        facts = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "model": backend.info.name,
            "model_sha256": backend.sha256,
            "arch": backend.info.arch,
            "n_layers": backend.info.n_layers,
            "calibrated": backend.info.calibrated,
            "drafter": backend.info.drafter,
            "kv_type": backend.info.kv_type,
            "places": backend.info.places,
            "max_tokens": asked.max_tokens,
            "temperature": asked.sampling.temperature,
            "repeat_penalty": asked.sampling.repeat_penalty,
            "top_k": asked.sampling.top_k,
            "top_p": asked.sampling.top_p,
            "min_p": asked.sampling.min_p,
            "seed": asked.sampling.seed or 0,
            "repeats": asked.repeats,
            "version": machine.package_version(),
            "commit": machine.commit(),
            "llama_cpp_python": version,
            "threads": threads,
            "machine": machine.report(threads),
        }
        rows = {
            policy.label: {
                "policy": policy.choice.label,
                "policy_reason": policy.reason,
                "lossless": policy.choice.is_lossless,
            }
            for policy in policies
        }

        def fresh() -> dict[str, Any]:
            return {policy.label: chooser.build_policy(backend, policy.choice) for policy in policies}

        choice_of = {policy.label: policy.choice for policy in policies}

        def prepare(label: str) -> None:
            backend.prepare(choice_of[label])

        rounds: list[Round] = []
        ask_stock = stock.answer if stock is not None else None
        for finished in compare(backend, fresh, prompts, asked, emit, ask_stock, prepare):
            rounds.append(finished)
            emit(TaskPart(report(rows, prompts, rounds, facts, complete=False)))
        whole = report(rows, prompts, rounds, facts, complete=True)
        if whole["stock"] is not None:
            rates = (figures["tokens_per_second"] for figures in (whole["stock"], whole["policies"][DENSE]))
            chooser.measurements.keep_stock_rate(backend, *rates)
        return whole


def decide(backend: Backend, chooser: PolicyChooser, choices: Sequence[PolicyChoice]) -> list[ComparedPolicy]:
    """Dense first, whether asked for or not: the others are measured against it."""
    found = {DENSE: ComparedPolicy(DENSE, PolicyChoice(DENSE), "the others are measured against it")}
    for choice in choices:
        if choice.label not in found:
            decided = chooser.decide(backend, choice)
            found[choice.label] = ComparedPolicy(choice.label, decided.choice, decided.reason)
    return list(found.values())
