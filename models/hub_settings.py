"""huggingface_hub's own settings, which it reads from environment variables when it is first imported."""

from __future__ import annotations

import os
from typing import Any

from specee.models import network_settings
from specee.models.errors import USAGE, ModelError


def constants() -> Any:
    """Its module `constants`. Raises ModelError where a variable has a value that it does not take."""
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        if not os.environ.get(name, name).strip():
            del os.environ[name]  # it would be the folder that we are in
    try:
        from huggingface_hub import constants
    except ValueError as error:
        network_settings.check()  # which may know the variable
        raise bad_variable(error) from error
    return constants


def bad_variable(error: Exception) -> ModelError:
    """What it says to a value that it does not take, with the variables that the value may be in."""
    names = ", ".join(sorted(name for name in os.environ if name.startswith("HF_")))
    return ModelError("bad environment variable", f"huggingface_hub says: {error}; look at {names or 'HF_...'}", USAGE)
