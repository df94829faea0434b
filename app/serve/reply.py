"""The objects of the chat completions API that answer a request."""

from __future__ import annotations

import time
import uuid
from typing import Any

from specee.app.engine.protocol import ChatEvent, Stats

FINISH = {"stop": "stop", "length": "length", "window": "length", "cancelled": "stop"}


class Reply:
    """The objects of one answer; `specee` in the last one has the figures of the exits."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._text: list[str] = []
        self._layers: dict[int, int] = {}

    def add(self, event: ChatEvent) -> str:
        """One more verified token; returns its text."""
        if not event.stop:
            self._layers.setdefault(event.index, event.exit_layer)
        self._text.append(event.text)
        return event.text

    def whole(self, stats: Stats) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._text)}
        choice = {"index": 0, "message": message, "finish_reason": FINISH[stats.stop_reason], "logprobs": None}
        extra = {"usage": _usage(stats), "specee": self._exits(stats)}
        return {**self._head, "object": "chat.completion", "choices": [choice], **extra}

    def chunk(self, delta: dict[str, str], stats: Stats | None = None) -> dict[str, Any]:
        reason = FINISH[stats.stop_reason] if stats is not None else None
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        extra = {} if stats is None else {"specee": self._exits(stats)}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **extra}

    def usage(self, stats: Stats) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(stats)}

    def _exits(self, stats: Stats) -> dict[str, Any]:
        names = ("policy", "policy_reason", "mean_exit_layer", "n_layers", "tokens_per_second", "ttft_s", "reused")
        layers = [self._layers[index] for index in sorted(self._layers)]
        return {**{name: getattr(stats, name) for name in names}, "exit_layers": layers}


def _usage(stats: Stats) -> dict[str, Any]:
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.tokens,
        "total_tokens": stats.prompt_tokens + stats.tokens,
        "prompt_tokens_details": {"cached_tokens": stats.reused},
    }


def error_object(title: str, message: str) -> dict[str, Any]:
    return {"error": {"message": f"{title}: {message}", "type": title.replace(" ", "_"), "code": None, "param": None}}
