"""Where the draft head of a model is kept."""

from __future__ import annotations

from pathlib import Path

from specee.models import embedded as shipped
from specee.models.gguf_header import Header
from specee.models.gguf_types import Array

ACCEPTANCE = "specee.acceptance"
TARGET = "specee.target_sha256"
WORTH = 0.4
"""Share of right first drafts: with 0.31, answers of the embedded model were 8% slower than without the head."""


def own_path(folder: Path, sha256: str) -> Path:
    """Where `specee-chat train` writes the head of the model with this hash."""
    return folder / f"{sha256}.eagle3.gguf"


def find(folder: Path, sha256: str, *, embedded: bool = False) -> Path | None:
    """The head to use: the user's own first, then the shipped one of the embedded model."""
    own = own_path(folder, sha256)
    if own.is_file():
        return own
    return shipped.head() if embedded else None


def is_worth_using(header: Header) -> bool:
    """Whether its drafts were right often enough that the model should keep states for it."""
    rates = acceptance(header)
    return not rates or rates[0] >= WORTH


def acceptance(header: Header) -> list[float]:
    """How often the head's drafts were right when it was made: the first of a step, the second after a right first one,
    and so on; empty for a head of another program."""
    found = header.values.get(ACCEPTANCE)
    return [float(rate) for rate in found.items or ()] if isinstance(found, Array) else []


def trained_for(header: Header) -> str | None:
    """The hash of the model file whose states the head learned from; None for a head of another program."""
    found = header.values.get(TARGET)
    return found.lower() if isinstance(found, str) else None


def is_for_others(header: Header, sha256: str) -> bool:
    """Whether the head learned from another file: it works where it fits, but fewer of its drafts may be right."""
    return trained_for(header) not in (None, sha256)
