"""Where the calibration of a model is kept."""

from __future__ import annotations

from pathlib import Path


def own_path(folder: Path, sha256: str) -> Path:
    """Where `specee-chat calibrate` writes the calibration of the model with this hash."""
    return folder / f"{sha256}.specee.gguf"


def find(folder: Path, sha256: str, *, embedded: bool = False) -> Path | None:
    """The calibration to use: the user's own first, then the shipped one of the embedded model."""
    own = own_path(folder, sha256)
    if own.is_file():
        return own
    if embedded:
        from specee.models import embedded as shipped

        path = shipped.calibration()
        return Path(path) if path is not None else None
    return None
