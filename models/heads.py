"""Where the draft head of a model is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specee.models import embedded, gguf_header
from specee.models.architectures import HEADS
from specee.models.damage import AGAIN
from specee.models.errors import ModelError
from specee.models.gguf_header import Header
from specee.models.gguf_types import Array
from specee.models.head_fit import impossible, misfit

SHIPPED = {
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": "smollm2-135m.eagle3.gguf",
    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046": "qwen2.5-coder-1.5b-instruct.eagle3.gguf",
}
"""Heads that come with the package, by the hash of their model: the embedded one, and Qwen's own Q4_K_M file."""

ACCEPTANCE = "specee.acceptance"
TARGET = "specee.target_sha256"
WORTH = 0.3
"""Of first drafts: with 0.31 right, chains of drafts of the embedded model were 7% faster than without the head."""


def own_path(folder: Path, sha256: str) -> Path:
    """Where `specee-chat train` writes the head of the model with this hash."""
    return folder / f"{sha256}.eagle3.gguf"


def find(folder: Path, sha256: str, target: Header | None = None) -> Path | None:
    """The head to use for the model with this hash: the user's own, or a shipped one that is right more often.
    `target`: the model, where it is here.

    One that cannot be used does not stand in the way of the other; `unusable_own` says why.
    """
    own, shipped = own_path(folder, sha256), embedded.data_file(SHIPPED[sha256]) if sha256 in SHIPPED else None
    if shipped is not None and unusable(shipped, target) is not None:
        shipped = None
    if not own.is_file() or unusable(own, target) is not None or (shipped is not None and _is_for_another(own, sha256)):
        return shipped
    return own if shipped is None or _first(own) >= _first(shipped) else shipped


def unusable_own(folder: Path, sha256: str, target: Header) -> str | None:
    """Why the user's own head is not used although it is there: what is wrong with it, and what to do."""
    own = own_path(folder, sha256)
    return unusable(own, target) if own.is_file() else None


def unusable(path: Path, target: Header | None) -> str | None:
    """Why the head in this file cannot draft for `target`, or for any model."""
    try:
        head = gguf_header.read_model(path)
    except ModelError as error:
        return error.message
    kind = HEADS.get(head.architecture, "a whole model")
    why = impossible(head, kind) if target is None else misfit(target, head, kind)
    return None if why is None else f"{path}: {why}; {AGAIN}"


def is_better(path: Path, rates: Sequence[float], target: Header) -> bool:
    """Whether the head in this file can be used, and was right more often than these rates."""
    return path.is_file() and unusable(path, target) is None and _first(path) > rates[0]


def _first(path: Path) -> float:
    """How often the first draft of a step was right."""
    try:
        return next(iter(acceptance(gguf_header.read_model(path))), 1.0)
    except ModelError:
        return 0.0


def _is_for_another(path: Path, sha256: str) -> bool:
    try:
        return is_for_others(gguf_header.read_model(path), sha256)
    except ModelError:
        return True


def is_worth_using(header: Header) -> bool:
    """Whether its drafts were right often enough that the model should keep states for it."""
    rates = acceptance(header)
    return not rates or rates[0] >= WORTH


def acceptance(header: Header) -> list[float]:
    """How often the head's drafts were right when it was made: the first of a step, the second after a right first one,
    and so on; empty for a head of another program."""
    found = header.values.get(ACCEPTANCE)
    rates = [float(rate) for rate in found.items or ()] if isinstance(found, Array) else []
    return rates if all(0.0 <= rate <= 1.0 for rate in rates) else []


def trained_for(header: Header) -> str | None:
    """The hash of the model file whose states the head learned from; None for a head of another program."""
    found = header.values.get(TARGET)
    return found.lower() if isinstance(found, str) else None


def is_for_others(header: Header, sha256: str) -> bool:
    """Whether the head learned from another file: it works where it fits, but fewer of its drafts may be right."""
    return trained_for(header) not in (None, sha256)
