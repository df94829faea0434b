"""What can compute: the CPU, the GPUs of this machine that the build knows, and workers on others."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from specee.native import ggml, rpc
from specee.native.endpoint import parse
from specee.native.errors import DeviceError

Kind = Literal["CPU", "GPU", "integrated GPU", "accelerator", "worker"]
_KINDS: dict[int, Kind] = {ggml.CPU: "CPU", ggml.GPU: "GPU", ggml.INTEGRATED_GPU: "integrated GPU"}


@dataclass(frozen=True)
class Device:
    """`free` and `total`: bytes of its memory when it was listed; 0 where it does not say.

    `endpoint`: where its worker listens, as the user wrote it; None on this machine.
    """

    name: str
    kind: Kind
    description: str
    free: int
    total: int
    endpoint: str | None = None
    handle: Any = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Its name for the user, with where it is."""
        return self.name if self.endpoint is None else f"{self.name} ({self.endpoint})"


def here() -> list[Device]:
    """The devices of this machine, the CPU too. Raises NativeError."""
    found = ggml.load()
    return [_describe(found.backend_dev_get(i)) for i in range(found.backend_dev_count())]


def of_workers(endpoints: Sequence[str]) -> list[Device]:
    """The devices of the workers that listen there (HOST:PORT), in their order.

    Raises DeviceError for one that is not there, WrongUseError for one under two names.
    """
    places = [parse(endpoint) for endpoint in endpoints]
    rpc.resolve(places)
    addresses = [rpc.check(place) for place in places]
    return [
        _describe(handle, endpoint)
        for endpoint, address in zip(endpoints, addresses, strict=True)
        for handle in rpc.add(address)
    ]


def choose(endpoints: Sequence[str] = (), names: Sequence[str] = ()) -> list[Device]:
    """Those that compute layers beside the CPU, in their order: of these workers, then the GPUs of this machine.

    `names`: only these, in this order. Integrated GPUs are for machines without others, as llama.cpp has it, unless
    they are named. Raises as `of_workers` does, and DeviceError for a name that no device has.
    """
    workers = of_workers(endpoints)
    local = [device for device in here() if device.kind in ("GPU", "integrated GPU")]
    if names:
        return _named([*workers, *local], names)
    return workers + ([device for device in local if device.kind == "GPU"] or local)


def to_serve(names: Sequence[str] = ()) -> list[Device]:
    """What a worker lets others use: these devices of this machine; without names its GPUs, or else the CPU.

    Raises DeviceError for a name that none has.
    """
    local = here()
    if not names:
        return [device for device in local if device.kind == "GPU"] or [one for one in local if one.kind == "CPU"]
    return _named(local, names)


def _named(there: Sequence[Device], names: Sequence[str]) -> list[Device]:
    known = {device.name.casefold(): device for device in there}
    for name in names:
        if name.casefold() not in known:
            told = ", ".join(device.label for device in there) or "none beside the CPU"
            raise DeviceError(f"no device {name}", f"there is: {told}")
    return [known[name.casefold()] for name in names]


def _describe(handle: Any, endpoint: str | None = None) -> Device:
    found = ggml.load()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    found.backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    name, about = (
        (text or b"").decode("utf-8", "replace")
        for text in (found.backend_dev_name(handle), found.backend_dev_description(handle))
    )
    kind = "worker" if endpoint is not None else _KINDS.get(found.backend_dev_type(handle), "accelerator")
    return Device(name, kind, about, free.value, total.value, endpoint, handle)
