"""huggingface_hub's own settings, which it reads from environment variables when it is first imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from specee.models import network_settings
from specee.models.errors import USAGE, ModelError

SWITCHES = (
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"),
    *("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_UPDATE_CHECK", "HF_DEBUG"),
    *("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_SYMLINKS", "HF_HUB_DISABLE_SYMLINKS_WARNING"),
    *("HF_HUB_DISABLE_EXPERIMENTAL_WARNING", "HF_HUB_DISABLE_XET", "HF_XET_HIGH_PERFORMANCE"),
    *("HF_HUB_ENABLE_HF_TRANSFER", "HF_HUB_DISABLE_SHARED_BLOBS"),
)
_READ = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "XDG_CACHE_HOME")
_ON, _OFF = ("1", "ON", "YES", "TRUE"), ("", "0", "OFF", "NO", "FALSE")


def check() -> None:
    """Raises ModelError for what huggingface_hub would misunderstand: it takes a switch that is neither on nor off as
    off, and so a doubtful HF_HUB_OFFLINE as leave to open connections. What is set to nothing is not set."""
    for name in [name for name in os.environ if name.startswith(_READ)]:
        if not os.environ[name].strip():
            del os.environ[name]  # it would be an empty address, or the folder that we are in
    for name in SWITCHES:
        if (value := os.environ.get(name, "")).upper() not in (*_ON, *_OFF):
            why = f"{name}: {value[:40]!r} is neither 1, yes, true, on nor 0, no, false, off; correct it, or unset it"
            raise ModelError("bad environment variable", why, USAGE)
    network_settings.check_hub()


def constants() -> Any:
    """Its module `constants`. Raises ModelError where a variable has a value that it does not take."""
    check()
    try:
        from huggingface_hub import constants
    except ValueError as error:
        network_settings.check()  # which may know the variable
        raise bad_variable(error) from error
    _check_token_file(Path(constants.HF_TOKEN_PATH))
    return constants


def _check_token_file(path: Path) -> None:
    """It is read before each connection."""
    if path.exists() and not path.is_file() and str(path) != os.devnull:
        why = f"{path} is no regular file; delete it, or name another in HF_TOKEN_PATH"
        raise ModelError("bad token file", why, USAGE)


def bad_variable(error: Exception) -> ModelError:
    """What it says to a value that it does not take, with the variables that the value may be in."""
    names = ", ".join(sorted(name for name in os.environ if name.startswith("HF_")))
    return ModelError("bad environment variable", f"huggingface_hub says: {error}; look at {names or 'HF_...'}", USAGE)
