"""`models show`: what the types of a model's weights cost on this CPU when several tokens pass them at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

LEAST_SHARE = 0.05  # of the weights that tokens are multiplied with; what is less is not worth a word


@dataclass(frozen=True, slots=True)
class Slow:
    """Weights without a kernel for several tokens at once."""

    type: str
    share: float  # of the bytes that tokens are multiplied with
    experts: bool  # of a mixture of experts
    alternative: str | None  # a type of about the same size that has such a kernel

    def __str__(self) -> str:
        what = f"experts in {self.type}" if self.experts else self.type
        instead = f"; {self.alternative}, about as large, has one" if self.alternative else ""
        return f"{what} ({self.share:.0%}{instead})"


def slow(header: Any) -> list[Slow] | None:
    """Types that make drafts and early exits gain little, the most common first. None: nobody could be asked."""
    from specee.models import gguf_types
    from specee.native import library
    from specee.native.errors import NativeError

    bytes_of: Counter[tuple[str, bool]] = Counter()
    total = 0
    try:
        for tensor in _matrices(header):
            experts = len(tensor.shape) > 2
            total += tensor.n_bytes
            if experts or not library.has_kernel(gguf_types.NUMBERS[tensor.type], *tensor.shape[:2]):
                bytes_of[tensor.type, experts] += tensor.n_bytes
        return [
            Slow(type_, n_bytes / total, experts, None if experts else _alternative(type_))
            for (type_, experts), n_bytes in bytes_of.most_common()
            if n_bytes >= LEAST_SHARE * total
        ]
    except NativeError:
        return None


def text(found: list[Slow] | None) -> str:
    """The line of `models show`."""
    if found is None:
        return "unknown, without the native library"
    if not found:
        return "each has a kernel for several tokens at once"
    types = ", ".join(map(str, found))
    return f"no kernel here for several tokens at once, so drafts and early exits gain little: {types}"


def _matrices(header: Any) -> list[Any]:
    """What each token is multiplied with: of an embedding only single rows are read, unless it is the LM head."""
    names = {tensor.name for tensor in header.tensors}
    tied = "output.weight" not in names
    return [
        tensor
        for tensor in header.tensors
        if len(tensor.shape) > 1 and ("embd" not in tensor.name or (tied and tensor.name == "token_embd.weight"))
    ]


def _alternative(type_: str) -> str | None:
    """The type with a kernel whose weights are nearest in size; of equals the one with larger blocks."""
    from specee.models import gguf_types
    from specee.native import library

    def bits(name: str) -> float:
        _, per_block, n_bytes = gguf_types.TENSORS[gguf_types.NUMBERS[name]]
        return 8 * n_bytes / per_block

    here = [name for name, number in gguf_types.NUMBERS.items() if library.has_kernel(number, 4096, 4096)]
    near = [name for name in here if bits(name) <= 1.5 * bits(type_) or bits(name) <= 3]
    if not near:
        return None
    return min(near, key=lambda name: (abs(bits(name) - bits(type_)), -gguf_types.TENSORS[gguf_types.NUMBERS[name]][1]))
