"""The objects of the chat completions API that answer a request."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

from specee.app.engine.protocol import ChatEvent, Stats, TokenLogprob
from specee.app.serve.call_reader import CallReader
from specee.app.serve.tools import ToolCall, Tools

FinishReason = Literal["stop", "length", "tool_calls"]
FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "window": "length", "cancelled": "stop"}
NO_LOGPROB = -9999.0
"""For a token of probability 0, as the API has it: JSON has no infinity."""


class Logprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class ChosenLogprob(Logprob):
    top_logprobs: list[Logprob]


class Logprobs(TypedDict):
    content: list[ChosenLogprob]
    refusal: None


class AnswerMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    """What the model thought before."""
    tool_calls: NotRequired[list[ToolCall]]


class Choice(TypedDict):
    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: Logprobs | None


class CachedTokens(TypedDict):
    cached_tokens: int


class ReasoningTokens(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens


class Figures(TypedDict):
    """What only this server tells: how the answer was decoded."""

    policy: str
    policy_reason: str
    mean_exit_layer: float
    n_layers: int
    tokens_per_second: float
    ttft_s: float
    reused: int
    exit_layers: list[int]


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    specee: Figures


Chunk = dict[str, Any]


class Reply:
    """The objects of one answer; `specee` in the last one has the figures of the exits."""

    def __init__(self, model: str, tools: Tools, *, logprobs: bool) -> None:
        self._id, self._created, self._model = f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model
        self._reader = CallReader(tools)
        self._text = self._thought = ""
        self._layers: dict[int, int] = {}
        self._logprobs: list[ChosenLogprob] | None = [] if logprobs else None

    # ---- in one piece ----------------------------------------------------------------------------------------------

    def add(self, event: ChatEvent) -> Chunk | None:
        """One more verified token; returns what a stream says of it, None for nothing."""
        logprobs: list[ChosenLogprob] = []
        if not event.stop and event.index not in self._layers:
            self._layers[event.index] = event.exit_layer
            if event.channel == "answer" and self._logprobs is not None and event.logprob is not None:
                logprobs = [_chosen_logprob(event.logprob, event.top_logprobs)]
                self._logprobs += logprobs
        if event.channel == "thought":
            self._thought += event.text
            return self._chunk({"reasoning_content": event.text}) if event.text else None
        text = self._reader.add(event.text)
        self._text += text
        if not text and not logprobs:
            return None
        return self._chunk({"content": text}, logprobs=logprobs if self._logprobs is not None else None)

    def end(self, stats: Stats) -> list[Chunk]:
        """No more tokens; returns the last objects of a stream."""
        rest = self._reader.end()
        self._text += rest
        calls = [{"index": i, **call} for i, call in enumerate(self._reader.calls)]
        deltas: list[dict[str, Any]] = [
            *([{"content": rest}] if rest else []),
            *([{"tool_calls": calls}] if calls else []),
        ]
        last = self._chunk({}, self._finish_reason(stats))
        return [*(self._chunk(delta) for delta in deltas), {**last, "specee": self._figures(stats)}]

    def whole(self, stats: Stats) -> ChatCompletion:
        """The answer, after `end`."""
        calls = self._reader.calls
        message: AnswerMessage = {"role": "assistant", "content": self._text, "refusal": None}
        if self._thought:
            message["reasoning_content"] = self._thought
        if calls:
            message = {**message, "content": self._text or None, "tool_calls": calls}
        logprobs: Logprobs | None = None
        if self._logprobs is not None:
            logprobs = {"content": self._logprobs, "refusal": None}
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": self._finish_reason(stats),
                    "logprobs": logprobs,
                }
            ],
            "usage": _usage(stats),
            "specee": self._figures(stats),
        }

    # ---- as a stream -----------------------------------------------------------------------------------------------

    def begin(self) -> Chunk:
        """The first object of a stream."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def usage(self, stats: Stats) -> Chunk:
        """The object after all others, for who asks for it."""
        return {**self._chunk({}), "choices": [], "usage": _usage(stats)}

    def _chunk(
        self,
        delta: dict[str, Any],
        finish_reason: FinishReason | None = None,
        logprobs: list[ChosenLogprob] | None = None,
    ) -> Chunk:
        of_tokens = None if logprobs is None else {"content": logprobs, "refusal": None}
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": of_tokens}
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        return {**head, "choices": [choice]}

    # ---- both ------------------------------------------------------------------------------------------------------

    def _finish_reason(self, stats: Stats) -> FinishReason:
        reason = FINISH[stats.stop_reason]
        return "tool_calls" if self._reader.calls and reason == "stop" else reason

    def _figures(self, stats: Stats) -> Figures:
        return {
            "policy": stats.policy,
            "policy_reason": stats.policy_reason,
            "mean_exit_layer": stats.mean_exit_layer,
            "n_layers": stats.n_layers,
            "tokens_per_second": stats.tokens_per_second,
            "ttft_s": stats.ttft_s,
            "reused": stats.reused,
            "exit_layers": [self._layers[index] for index in sorted(self._layers)],
        }


def _chosen_logprob(chosen: TokenLogprob, likeliest: tuple[TokenLogprob, ...]) -> ChosenLogprob:
    return {**_logprob(chosen), "top_logprobs": [_logprob(one) for one in likeliest]}


def _logprob(given: TokenLogprob) -> Logprob:
    text = given.piece.decode("utf-8", "replace")
    return {"token": text, "logprob": max(given.logprob, NO_LOGPROB), "bytes": list(given.piece)}


def _usage(stats: Stats) -> Usage:
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.tokens,
        "total_tokens": stats.prompt_tokens + stats.tokens,
        "prompt_tokens_details": {"cached_tokens": stats.reused},
        "completion_tokens_details": {"reasoning_tokens": stats.thought_tokens},
    }
