"""What a machine has for a model: memory, and the speed at which it decodes. Plain values; probe.py finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DecodingSpeed:
    """What decoding runs at, as it was measured with the runtime's own kernels.

    `rates`: bytes of weights a second that one row reads, by their type in the file (Q4_K); `rows`: what a step of n
    rows takes, of one with a single row, by n. `attention`: bytes a second of keys and values, counted for each head
    that attends to them. `layer`: seconds of each layer whatever its weights.
    """

    rates: Mapping[str, float]
    rows: Mapping[int, float] = field(default_factory=dict)
    attention: float = 0.0
    layer: float = 0.0


@dataclass(frozen=True)
class Gpu:
    """A GPU that this build can use; `speed` None: not measured."""

    name: str
    free_bytes: int
    total_bytes: int
    speed: DecodingSpeed | None = None


@dataclass(frozen=True)
class Machine:
    """`free_ram`: bytes that a new process can have without swapping; `free_disk`: bytes where fetched models are kept.
    None when the system does not say.

    `speed` None: nobody has measured it yet; then nothing is said about tokens a second. `busy`: other programs took
    part of the cores while it was measured, so that it is too low.
    """

    cores: int
    threads: int
    free_ram: int | None
    gpus: tuple[Gpu, ...] = ()
    speed: DecodingSpeed | None = None
    busy: bool = False
    build: str | None = None
    """Which library the speed was measured with."""
    problem: str | None = None
    """Why it could not be measured."""
    free_disk: int | None = None

    @property
    def free_vram(self) -> int:
        """On all GPUs together: llama.cpp shares a model's layers out to them."""
        return sum(gpu.free_bytes for gpu in self.gpus)
