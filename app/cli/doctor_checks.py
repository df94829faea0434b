"""What `specee-chat doctor` checks. Each check is one line, and none stops the next."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from specee.app import error_log, machine, paths
from specee.app.engine.protocol import Done, Message
from specee.app.errors import AppError
from specee.app.formatting import size
from specee.app.options import ChatOptions, LoadOptions, PolicyChoice, Sampling
from specee.native import cpu, topology

WANTED_BYTES = 1 << 30  # free on the disk with our data: a small model and its calibration
SELF_TEST = ChatOptions(PolicyChoice("dense"), Sampling(temperature=0.0), 16)


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str


def checks(load: LoadOptions, *, quick: bool) -> Iterator[Check]:
    """The checks, as they are done; without the library and the model when `quick`."""
    wanted: list[tuple[str, Callable[[LoadOptions], str]]] = [
        ("system", _system),
        ("cpu", _cpu),
        ("threads", _threads),
        ("disk", _disk),
        ("config", _config),
        ("history", _history),
        ("model", _model),
        ("calibration", _calibration),
    ]
    if not quick:
        wanted += [("library", _library), ("devices", _devices), ("self-test", _self_test)]
    for name, check in wanted:
        try:
            yield Check(name, True, check(load))
        except Exception as error:  # whatever it is: the next check may still say something
            yield Check(name, False, error_log.told(error, paths.find(load.data_dir).logs).line)


def _system(load: LoadOptions) -> str:
    return f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {machine.package_version()}"


def _cpu(load: LoadOptions) -> str:
    return f"{cpu.processor_name()}; {' '.join(cpu.matrix_flags()) or 'extensions unknown'}"


def _threads(load: LoadOptions) -> str:
    found, choice = topology.cores(), machine.thread_choice()
    threads = f"{load.threads}, as asked for" if load.threads else str(choice.threads)
    if choice.reason and not load.threads:
        threads += f": {choice.reason}"
    return f"{threads}; {topology.describe(found)}" if found else threads


def _config(load: LoadOptions) -> str:
    path = paths.find(load.data_dir).config
    return str(path) if path.is_file() else f"{path} (not there: built-in defaults)"


def _disk(load: LoadOptions) -> str:
    folder = paths.find(load.data_dir).data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < WANTED_BYTES:
        raise AppError("little room", f"{size(free)} free at {folder}")
    return f"{size(free)} free at {folder}"


def _history(load: LoadOptions) -> str:
    from specee.app.chat.history.store import Store

    path = paths.find(load.data_dir).history
    if not path.exists():
        return f"{path} (none yet)"
    store = Store(path)
    try:
        found = store.check()
        if found != "ok":
            raise AppError("the history is damaged", f"{path}: {found}; export what can be read, and move it away")
        return f"{path}, {len(store.chats())} chats"
    finally:
        store.close()


def _model(load: LoadOptions) -> str:
    from specee.models import gguf_header, model_structure, resolve
    from specee.models.model_kind import check_answers

    found = resolve.resolve(load.model)
    header = gguf_header.read_model(found.path)
    check_answers(header)
    file = model_structure.read(header)
    return f"{found.name}: {file.arch}, {file.layers} layers, {size(file.file_bytes)}, {found.path}"


def _calibration(load: LoadOptions) -> str:
    from specee.models import calibrations, gguf_header, model_hash, resolve
    from specee.native import library

    where = paths.find(load.data_dir)
    found = resolve.resolve(load.model)
    header = gguf_header.read_model(found.path)
    if limit := library.architecture_limit(header.architecture):
        return f"none: no layers are skipped: {limit}"
    digest = model_hash.of_model(header, where.cache)
    file = calibrations.find(where.calibrations, digest, embedded=found.embedded)
    return str(file) if file is not None else "none: no layers are skipped until specee-chat calibrate"


def _library(load: LoadOptions) -> str:
    from specee.app.cli.task import run_task
    from specee.app.engine.protocol import ReportMachine

    report = run_task(ReportMachine(load.on_cpu))  # a worker that is not there says nothing of the library
    return f"kernels {report['kernels']}; {report['build']}"


def _devices(load: LoadOptions) -> str:
    """What can compute here, and on the workers that were named."""
    from specee.app.cli.task import run_task
    from specee.app.engine.protocol import ReportMachine

    found = run_task(ReportMachine(replace(load, cpu_fallback=False)))["devices"]  # here, what is missing is said
    return "; ".join(_device(one) for one in found)


def _device(one: dict[str, Any]) -> str:
    if one["kind"] == "CPU":
        return f"{one['label']}: {one['description']}"
    about = one["label"] if one["kind"] == "worker" else f"{one['label']}: {one['description']}"
    return f"{about}, {size(one['free'])} of {size(one['total'])} free"


def _self_test(load: LoadOptions) -> str:
    from specee.app.engine.client import EngineClient

    client = EngineClient(replace(load, n_ctx=512))
    try:
        for event in client.generate((Message("user", "Say hello."),), SELF_TEST):
            if isinstance(event, Done):
                stats = event.stats
                where = f"; {client.info.places}" if client.info is not None and client.info.places else ""
                speed = f"{stats.tokens_per_second:.1f} a second, first after {stats.ttft_s:.2f} s"
                return f"{stats.tokens} tokens, {speed}{where}"
        raise AppError("self-test", "the engine gave no answer")
    finally:
        client.close()
