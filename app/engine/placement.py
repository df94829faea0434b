"""Which layers run on which device: as the user wants it, or as many as there is room for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from specee.app import settings
from specee.app.errors import USAGE, AppError
from specee.app.formatting import size
from specee.app.options import LoadOptions

if TYPE_CHECKING:
    from specee.models.layer_bytes import LayerBytes
    from specee.models.model_structure import ModelStructure
    from specee.native.devices import Device

SHARE = 0.95  # of a device's free memory: its driver wants some, and other programs grow
RESERVE_BYTES = 64 << 20  # of each device, for what has no formula
N_BATCH = 512  # rows of a prompt that are computed at once
CPU = "the CPU"
HEAD = "the LM head"


@dataclass(frozen=True)
class Needs:
    """Bytes on the device that has it: of each layer with its keys and values, and of the LM head with the logits; of
    what is computed, on each device."""

    layers: tuple[int, ...]
    head: int
    computing: int

    @property
    def parts(self) -> tuple[int, ...]:
        """The layers, and the LM head as the last one."""
        return (*self.layers, self.head)


@dataclass(frozen=True)
class Placement:
    """The first `n_layers` of the layers are on `devices`, and with one more the LM head; `split` shares them out."""

    n_layers: int
    devices: tuple[Device, ...] = ()
    split: tuple[float, ...] = ()
    notice: str | None = None
    """What the user should know of it."""

    def words(self, n_layer: int) -> str:
        """What runs where in a model of so many layers."""
        there = [self.devices[i].label for i in shared_out(min(self.n_layers, n_layer + 1), self.split)]
        return describe([*there, *[CPU] * (n_layer + 1 - len(there))])


def needs(structure: ModelStructure, sizes: LayerBytes, n_ctx: int, n_slots: int) -> Needs:
    """For windows of n_ctx tokens in n_slots chats."""
    cache = structure.kv_bytes_per_token * n_ctx * n_slots // max(1, structure.layers)
    scores = 2 * n_ctx * N_BATCH * max(1, int(structure.heads)) * 4  # of attention, and what masks and softmax take
    states = N_BATCH * (4 * structure.width + 3 * structure.feed_forward) * 4
    return Needs(
        tuple(weights + cache for weights in sizes.layers),
        sizes.head + structure.vocabulary * N_BATCH * 4,
        scores + states + RESERVE_BYTES,
    )


def choose(options: LoadOptions, need: Needs) -> Placement:
    """Finds the devices, and how many layers they take. Raises errors with a title and a message."""
    if not options.has_devices:
        return Placement(0)
    from specee.native import devices

    found = tuple(devices.choose(settings.names(options.rpc), settings.names(options.device)))
    split = tuple(float(part) for part in settings.names(options.tensor_split))
    if split and len(split) != len(found):
        there = ", ".join(device.label for device in found) or "none"
        why = f"{options.tensor_split!r} is for {len(split)} devices; there are {len(found)}: {there}"
        raise AppError("bad value", f"tensor-split: {why}", USAGE)
    if not found:
        return Placement(0, notice="no GPU is known to this build: the CPU computes all layers")
    split = split or tuple(float(device.free or 1) for device in found)
    split = tuple(part / max(split) for part in split)  # llama.cpp adds them up in 32 bits
    if isinstance(options.gpu_layers, int) and not options.has_lost:
        return Placement(options.gpu_layers, found, split)
    n = fitting(need, [device.free for device in found], split)
    if isinstance(options.gpu_layers, int):
        n = min(n, options.gpu_layers)
    if n == 0:
        there = ", ".join(f"{size(device.free)} on {device.label}" for device in found)
        return Placement(0, notice=f"no layer has room beside the CPU ({there}): the CPU computes all of them")
    return Placement(n, found, split)


def fitting(need: Needs, free: Sequence[int], split: Sequence[float]) -> int:
    """How many of the first layers fit, the LM head counted as the last.

    `free`: bytes by device, 0 where it does not say.
    """
    parts = need.parts
    for n in range(len(parts), 0, -1):
        taken = [0] * len(free)
        for layer, device in enumerate(shared_out(n, split)):
            taken[device] += parts[layer]
        if all(t == 0 or f == 0 or t + need.computing <= SHARE * f for t, f in zip(taken, free, strict=True)):
            return n
    return 0


def shared_out(n: int, split: Sequence[float]) -> list[int]:
    """The device of each of n layers: llama.cpp's rule."""
    if n == 0:
        return []
    total = sum(split)
    ends = [end / total for end in accumulate(split)]
    return [min(bisect_right(ends, layer / n), len(split) - 1) for layer in range(n)]


def labels(names: Sequence[str], devices: Sequence[Device]) -> list[str]:
    """The devices' names for the user."""
    known = {device.name: device.label for device in devices}
    return [CPU if name == "CPU" else known.get(name, name) for name in names]


def describe(places: Sequence[str]) -> str:
    """What runs where: `places` has the device of each layer, and of the LM head."""
    n_layers = len(places) - 1
    parts: list[str] = []
    for place, group in groupby(range(len(places)), lambda i: places[i]):
        inside = list(group)
        layers = [i + 1 for i in inside if i < n_layers]
        names = [_range(layers)] if layers else []
        if inside[-1] == n_layers:
            names.append(HEAD)
        parts.append(f"{' and '.join(names)} on {place}")
    return ", ".join(parts)


def _range(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"
