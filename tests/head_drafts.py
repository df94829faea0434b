"""What a draft head drafts in the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specee.app.engine import training_task
from specee.native.eagle_head import EagleHead as NativeHead
from specee.native.engine import Model
from specee.predictors.training.conversations import Conversation


def drafts(
    path: Path, backend: Any, *conversations: Conversation, before: Sequence[int] | None = None
) -> tuple[int, int]:
    """How many first drafts of the head in the runtime are right, of how many. `before`: what stands before each
    conversation, else what does in a chat."""
    if before is None:
        before, _ = training_task.chat_around(backend)
    right = tried = 0
    for each in conversations:
        model = Model(path)
        engine = backend.engine
        head = NativeHead(model, engine)
        text = [*before, *each.tokens]
        begin = len(before) + each.begin + 1
        engine.prefill(text[:begin])
        for at in range(begin, len(text)):
            assert head.settle(at)
            head.read(text[len(head.tokens) : at])
            right += head.best()[0] == text[at]
            tried += 1
            engine.forward(text[at])
        head.close()
        model.close()
    return right, tried
