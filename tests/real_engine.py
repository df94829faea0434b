"""What is here of the real engine: why tests that need it cannot run, if so."""

from __future__ import annotations

ENDLESS = ("--temperature", "0", "--repeat-penalty", "1", "--policy", "dense", "--max-tokens", "3000")
"""With these the embedded model's LONG_STORY is over only when it is stopped: it repeats itself."""
LONG_STORY = "Write a very long story about the sea."
NO_END = {0: -100.0, 2: -100.0}
"""The logit bias with which the embedded model ends no answer itself, whatever the question."""


def missing_library() -> str | None:
    """The reason why the native library cannot be used; None when it can."""
    from specee.native import library
    from specee.native.errors import NativeError

    try:
        library.directory()
    except NativeError as error:
        return str(error)
    return None


def missing_model() -> str | None:
    """The reason why nothing can be answered with the embedded model; None when it can."""
    from specee.models import embedded

    return missing_library() or (None if embedded.path() is not None else "no embedded model in this build")
