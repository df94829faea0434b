"""The model that a chat was kept with: whether it can answer it now."""

from __future__ import annotations

from specee.models import gguf_header, resolve
from specee.models.errors import ModelError
from specee.models.model_kind import check_answers


def lost(model: str) -> ModelError | None:
    """Why it cannot; NotHere for one that can be fetched, None for one that can."""
    try:
        check_answers(gguf_header.read_model(resolve.resolve(model).path))
    except ModelError as error:
        return error
    return None


def on_screen(model: str, answering: str) -> str:
    """What one who sees the chat again should know when another model answers it now."""
    error = lost(model)
    if error is None:
        return f"{model} answered this chat; /model {model} takes it again"
    if isinstance(error, resolve.NotHere):
        return f"{model} answered this chat and is not here; {answering} does now, or /pull {model} downloads it"
    return f"{model} cannot answer this chat any more ({error.title}); {answering} does now, or /model NAME"
