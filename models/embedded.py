"""The model that is installed with the package, and what comes with it."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

MODEL = "smollm2-135m.gguf"
CALIBRATION = "smollm2-135m.specee.gguf"


def _folders() -> list[Path]:
    if override := os.environ.get("SPECEE_EMBEDDED_DIR"):  # for developers
        return [Path(override)]
    folders = [Path(__file__).with_name("data")]
    try:  # an editable install runs this file from the source tree; the data is with the installed files
        distribution = importlib.metadata.distribution("specee-chat")
        folders.append(Path(str(distribution.locate_file("specee/models/data"))))
    except importlib.metadata.PackageNotFoundError:
        pass
    return folders


def data_file(name: str) -> Path | None:
    """A file that is installed with the package; None when it is not there."""
    return next((folder / name for folder in _folders() if (folder / name).is_file()), None)


def path() -> Path | None:
    """The embedded model; None when the build left it out (SPECEE_EMBEDDED_MODEL=OFF)."""
    return data_file(MODEL)


def calibration() -> Path | None:
    """The embedded model's calibration; None when there is none."""
    return data_file(CALIBRATION)
