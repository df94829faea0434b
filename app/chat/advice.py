"""What a user is told to do, in a chat with commands."""

from __future__ import annotations

from specee.app.engine.client import EngineLostError
from specee.app.engine.protocol import ModelInfo
from specee.app.errors import PROMPT_TOO_LONG, AppError
from specee.app.options import LoadOptions


def how_to_make_room(info: ModelInfo | None) -> str:
    """What can be done about a context window that is full, with this model."""
    ways = "/drop leaves out the oldest turns, /summarize replaces them by a summary"
    return f"{ways}, /ctx N gives a larger one" if info is None or info.larger_window is not None else ways


def after(error: AppError, info: ModelInfo | None) -> str | None:
    """What can be done after an error of an answer; None where its message says it."""
    if isinstance(error, EngineLostError):
        return "/continue or /retry starts it again; the chat is kept"
    return how_to_make_room(info) if error.exit_code == PROMPT_TOO_LONG else None


def who_goes_on(error: AppError, load: LoadOptions) -> str:
    """The question after a device has failed with which the model was loaded so."""
    left = load.without(error.worker).rpc
    return "Shall the CPU go on alone?" if left is None else f"Shall it go on with {left}?"
