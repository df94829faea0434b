"""`specee-chat worker`: this machine computes layers of models that run on other machines."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from specee.app import settings
from specee.app.cli.command import Command
from specee.app.cli.option import Setting, option
from specee.app.cli.shared_options import EVERYWHERE, THREADS
from specee.app.errors import FAILURE, INTERRUPTED, AppError

LOOPBACK = "127.0.0.1"


@click.command(cls=Command, params=[THREADS, *EVERYWHERE])
@option(
    "--host",
    type=Setting(settings.FileName),
    default=LOOPBACK,
    metavar="ADDRESS",
    help="Where to listen: the address of this machine in a network that you trust.",
    otherwise="this machine only",
)
@option(
    "--port",
    type=Setting(settings.Port),
    default=settings.WORKER_PORT,
    metavar="N",
    help="0 takes a free one.",
    otherwise=settings.WORKER_PORT,
)
@option(
    "--device",
    type=Setting(settings.DeviceNames),
    metavar="NAME[,..]",
    help="What computes, such as CPU or CUDA0; 'specee-chat doctor' lists what is here.",
    otherwise="the GPUs, without one the CPU",
)
def worker(host: str, port: int, device: str | None, threads: int | None, **values: Any) -> int:
    """Compute layers of models for another machine.

    The model's file is on the other machine only, which sends the layers when it loads the model. One program at a
    time can use a worker. Nothing is encrypted and nobody needs a password, and whoever reaches the port may read and
    change what is computed, or break in: only in networks that you trust. Ctrl+C ends it.

    \b
    specee-chat worker --host 192.168.1.20                on the machine that helps
    specee-chat --rpc 192.168.1.20:50052 --model M        on the one with the model
    """
    from specee.app import machine
    from specee.native import devices, rpc
    from specee.native.errors import DeviceError

    try:
        chosen = devices.to_serve(settings.names(device))
        place = rpc.free_port(host, port)
    except DeviceError as error:
        raise AppError(error.title, error.message) from error  # no --cpu-fallback helps here
    n_threads = threads or machine.default_threads()
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp's own lines

    def ready() -> None:
        if not place.host.startswith("127."):
            warning = "whoever reaches this port can use this machine: no password, nothing encrypted"
            print(f"specee-chat: {warning}; only for networks that you trust", file=sys.stderr, flush=True)
        where = ", ".join(f"{one.name} ({one.description})" for one in chosen)
        print(f"worker on {place}: {where}, {n_threads} threads; Ctrl+C ends it", file=own, flush=True)

    try:
        rpc.serve(place, [one.handle for one in chosen], n_threads, ready)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # the thread that serves cannot be told to end
    print(f"specee-chat: worker on {place} ended: it cannot listen there any more", file=sys.stderr)
    return FAILURE
