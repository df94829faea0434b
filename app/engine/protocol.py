"""The messages between the user's process and the engine process; wire.py says how they travel.

Each message is a frozen dataclass whose fields have types that JSON can carry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from specee.app.bench.prompts import Asked, BenchPrompt
from specee.app.engine.terminal_guard import SavedTerminal
from specee.app.errors import USAGE, AppError
from specee.app.options import DEFAULT_KV_TYPE, ChatOptions, LoadOptions, PolicyChoice
from specee.app.settings import KVType, Think

Channel = Literal["thought", "answer"]
Emit = Callable[[object], None]
"""Sends one message from the engine process."""

# ---- to the engine -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """Open the model: answered by Progress..., then ModelLoaded or Failed."""

    options: LoadOptions


@dataclass(frozen=True)
class Message:
    """One message of a chat: role is system, user, assistant, or tool for what a tool gave back.

    `tool_calls`: those of an assistant's message, the JSON of a list as the chat completions API has it.
    `tool_call_id` and `name`, of a tool's message: the call that it answers, and the tool.
    `thought`: what an assistant thought before it. The model reads it again only in an answer that goes on, and between
    calls of tools, if its template has a place for it.
    """

    role: str
    content: str
    tool_calls: str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    thought: str | None = None


@dataclass(frozen=True)
class Generate:
    """Answer the chat: answered by PromptProgress..., Started, TokenEvents..., then Done or Failed.

    Each of them travels in an OfRequest. Several may be under way at once; those that find no free slot wait in their
    order.
    `continue_answer`: the last message is the beginning of an answer, and what comes is its rest.
    `tools`: what the model may call, the JSON of a list as the chat completions API has it; for models whose
    ModelInfo has `takes_tools`.
    `is_comparison`: the policy begins without what earlier answers taught it, and learns nothing for later ones.
    `given`: the first tokens of the answer, which another engine gave before it was lost: those after them come.
    """

    request: int
    messages: tuple[Message, ...]
    options: ChatOptions
    continue_answer: bool = False
    tools: str | None = None
    is_comparison: bool = False
    given: tuple[int, ...] = ()


@dataclass(frozen=True)
class Calibrate:
    """Calibrate the model, on so many tokens: a job, answered by Progress and TaskPart..., then TaskDone or Failed."""

    load: LoadOptions
    tokens: int | None
    seed: int
    output: str | None


@dataclass(frozen=True)
class Train:
    """Make a draft head for the model: a job. `tokens`, `minutes`: of recorded conversations, whichever comes first."""

    load: LoadOptions
    tokens: int | None
    minutes: float | None
    seed: int
    output: str | None


@dataclass(frozen=True)
class Optimize:
    """Write a copy of the model with faster weights: a job."""

    load: LoadOptions
    output: str | None
    force: bool


@dataclass(frozen=True)
class Bench:
    """Compare policies: a job. `choices` None: all that run on the model."""

    load: LoadOptions
    prompts: tuple[BenchPrompt, ...]
    choices: tuple[PolicyChoice, ...] | None
    asked: Asked
    stock_python: str | None


@dataclass(frozen=True)
class ReportMachine:
    """Say what measurements depend on: a job."""

    load: LoadOptions


@dataclass(frozen=True)
class MeasureSpeed:
    """Say how fast this machine decodes, whatever the model, and which GPUs there are: a job of half a second."""

    load: LoadOptions


Task = Calibrate | Train | Optimize | Bench | ReportMachine | MeasureSpeed


@dataclass(frozen=True)
class Cancel:
    """Stop the request soon, also in the middle of reading the prompt."""

    request: int


@dataclass(frozen=True)
class GuardTerminal:
    """Give the terminal back when the program dies without a Close."""

    terminal: SavedTerminal


@dataclass(frozen=True)
class Close:
    """End the process."""


# ---- from the engine -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alive:
    """A sign of life, once a second while the engine's computations end."""


@dataclass(frozen=True)
class ModelInfo:
    """What was loaded. `dense_only` is the reason why exits cannot be used, None when they can.

    `drafter`: the model that drafts for it, None without one; `drafter_is_for_others`: it learned from another file.
    """

    name: str
    path: str
    arch: str
    n_layers: int
    n_ctx: int
    threads: int
    dense_only: str | None = None
    calibrated: bool = False
    drafter: str | None = None
    drafter_is_for_others: bool = False
    n_slots: int = 1
    """Chats that are answered at once, each with a window of n_ctx tokens."""
    n_stages: int = 1
    """Devices that its layers are on, one after the other."""
    takes_tools: bool = False
    """Whether the chat template has a place for tools."""
    takes_calls: bool = False
    """Whether it has one for calls of tools and their results."""
    folds_system: bool = False
    """Whether it has none for a system message, which is then sent with the first question."""
    gpu_layers: int = 0
    places: str = ""
    """What runs where, in words; "" where the CPU computes all."""
    kv_type: KVType = DEFAULT_KV_TYPE
    trained_ctx: int = 0
    """The largest context window that it can have, in tokens; 0: unknown."""

    thinks: Literal["never", "always", "on", "off"] = "never"
    """Whether it thinks before it answers; "on" and "off" are what its template does if it is not told."""

    def cannot_think(self, think: Think) -> str | None:
        """Why it cannot be told so, None if it can."""
        if self.thinks == "always" and think == "off":
            return f"{self.name} cannot be told not to think: its chat template has no switch for that"
        if self.thinks == "never" and think not in ("auto", "off"):
            return f"{self.name} does not think before it answers: its chat template has no thoughts"
        return None

    @property
    def larger_window(self) -> str | None:
        """What to do where the window is too small; None where no larger one can be had."""
        if not self.trained_ctx:
            return "give a larger --ctx"
        return f"give a larger --ctx (at most {self.trained_ctx})" if self.n_ctx < self.trained_ctx else None

    def pipelines(self, choice: PolicyChoice) -> bool:
        """Whether several devices compute at once: then drafters guess, not lenses."""
        return choice.name == "pipelined" and self.n_stages > 1

    def check(self, choice: PolicyChoice) -> None:
        """Raises AppError for a policy that cannot run on this model."""
        why = None
        if self.dense_only is not None and not choice.runs_whole_rows and choice.name != "auto":
            why = f"{self.dense_only}; take the policy auto"
        elif choice.needs_calibration and not self.calibrated and not self.pipelines(choice):
            why = "it needs a calibration of the model, which 'specee-chat calibrate' makes; or take the policy auto"
        if why is not None:
            raise AppError(f"policy {choice.label} cannot run with {self.name}", why, USAGE)


@dataclass(frozen=True)
class ModelLoaded:
    info: ModelInfo


@dataclass(frozen=True)
class Progress:
    """A long step under way; `fraction` in [0, 1], None when unknown."""

    what: str
    fraction: float | None = None


@dataclass(frozen=True)
class Notice:
    """What the user should know of this model, or of how it is asked. A client tells each one once."""

    text: str


@dataclass(frozen=True)
class PromptProgress:
    """Prompt tokens read so far, of how many. The first one, with none, says that the request waits no longer."""

    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """The prompt is read; what will run, and why. `dense_rate`: tokens per second of dense decoding, if measured;
    `stock_rate`: those of the unpatched library in a benchmark on this machine, if there was one."""

    policy: str
    policy_reason: str
    prompt_tokens: int
    reused: int
    seed: int
    dense_rate: float | None = None
    stock_rate: float | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its bytes (perhaps only a part of a character), and the natural logarithm of its probability."""

    token: int
    piece: bytes
    logprob: float


@dataclass(frozen=True)
class ChatEvent:
    """A token was chosen, verified or rolled back (state: provisional, verified, rolled_back).

    The `text` of the verified events, put together, is the answer; the text of the others is for display. `scores`
    are (layer, score) pairs of the probes; `t` counts seconds from the request; `drafter` says what drafted the token.
    `logprob`, where ChatOptions.top_logprobs is given, is that of a verified token in the model's own distribution,
    before penalties, temperature and cuts; `top_logprobs` are the likeliest tokens there, the best first.
    `channel`: whether it belongs to a thought or to the answer. A token with text of both comes twice.
    """

    index: int
    text: str
    token: int
    exit_layer: int
    state: str
    t: float
    scores: tuple[tuple[int, float], ...] = ()
    candidates: tuple[int, ...] = ()
    stop: bool = False
    drafter: str | None = None
    logprob: TokenLogprob | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    channel: Channel = "answer"
    candidate_texts: tuple[str, ...] = ()
    """The texts of the candidates."""

    @property
    def said(self) -> str:
        """Its part of the answer's final text."""
        return self.text if self.state == "verified" and self.channel == "answer" else ""


@dataclass(frozen=True)
class TokenEvents:
    """Some tokens of the answer, in one message."""

    events: tuple[ChatEvent, ...]


@dataclass(frozen=True)
class Stats:
    """Figures of one answer. `tokens_per_second` is decoding only: from the first token to the end.

    `thought_tokens` of the `tokens` are thoughts, which took `thought_seconds`; `prompt_thought_tokens` of the prompt
    are the begun thought of an answer that went on. Later prompts have neither. `thought_cut`: the answer ended within
    a thought; `thought_closed`: its thought was ended by ChatOptions.think_tokens.
    """

    prompt_tokens: int
    reused: int
    tokens: int
    ttft_s: float
    total_s: float
    tokens_per_second: float
    mean_exit_layer: float
    n_layers: int
    policy: str
    policy_reason: str
    stop_reason: str  # stop | length | cancelled | window
    seed: int
    dense_rate: float | None = None
    policy_stats: dict[str, Any] = field(default_factory=dict)
    thought_tokens: int = 0
    prompt_thought_tokens: int = 0
    thought_seconds: float = 0.0
    thought_cut: bool = False
    thought_closed: bool = False


@dataclass(frozen=True)
class Done:
    stats: Stats


@dataclass(frozen=True)
class TaskPart:
    """What the job's result would be if it ended now."""

    result: dict[str, Any]


@dataclass(frozen=True)
class OfRequest:
    """A message that belongs to the answer of one request."""

    request: int
    message: Any


@dataclass(frozen=True)
class TaskDone:
    result: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The request failed. `fatal`: all have, the engine process has ended or has no model to answer with.

    `of_device` and `worker`: see AppError.
    """

    title: str
    message: str
    exit_code: int = 1
    fatal: bool = False
    of_device: bool = False
    worker: str | None = None

    @classmethod
    def by(cls, error: AppError, *, fatal: bool) -> Failed:
        """What this error did."""
        told = error.title, error.message, error.exit_code
        return cls(*told, fatal, error.of_device, error.worker)

    def as_error(self, kind: type[AppError] = AppError) -> AppError:
        """The error."""
        return kind(self.title, self.message, self.exit_code, of_device=self.of_device, worker=self.worker)
