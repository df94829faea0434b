"""Whether a model was only trained to continue texts, where its file says so."""

from __future__ import annotations

import re

from specee.models.gguf_header import Header

_BASE = re.compile(r"(?:^|[-_ .])(?:base|pt|pretrained?)(?:$|[-_ .])", re.IGNORECASE)
_TUNED = re.compile(r"(?:^|[-_ .])(?:instruct|chat|it|sft|dpo|rlhf|assistant|thinking)(?:$|[-_ .])", re.IGNORECASE)


def is_base(header: Header) -> bool:
    """By what it was tuned for (`general.finetune`), or by its name."""
    finetune, name = (header.values.get(f"general.{key}") for key in ("finetune", "name"))
    for text in (finetune, name):
        if isinstance(text, str) and text:
            if _TUNED.search(text):
                return False
            if _BASE.search(text):
                return True
    return False
