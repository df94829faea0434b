"""What can be chosen, as small frozen values that travel to the engine process. They cannot be made with a value that
settings.py does not allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, NamedTuple, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from specee.app.errors import USAGE, AppError
from specee.app.settings import (
    CALIBRATED,
    Acceptance,
    AdditivePenalty,
    ContextTokens,
    DeviceNames,
    DraftLength,
    Endpoints,
    FileName,
    GivenGpuLayers,
    GivenThreshold,
    KVType,
    LogitBias,
    MaxPending,
    MaxTokens,
    MinP,
    PolicyName,
    RepeatLastN,
    RepeatPenalty,
    Rule,
    Seed,
    SkippedKV,
    Slots,
    StopSequences,
    Temperature,
    TensorSplit,
    Text,
    Think,
    ThinkTokens,
    Threads,
    Threshold,
    TopK,
    TopLogprobs,
    TopP,
    allowed,
    check,
    names,
    shown,
)
from specee.native import endpoint

POLICIES: tuple[str, ...] = get_args(PolicyName)
PARAMETERS: dict[str, tuple[str, ...]] = {
    "auto": (),
    "dense": (),
    "chain": ("acceptance", "draft_length", "early_rejection"),
    "tree": ("acceptance", "draft_length"),
    "exact": ("rule", "threshold", "max_pending", "draft_length"),
    "specee": ("rule", "kv", "threshold", "max_pending", "draft_length"),
    "pipelined": ("draft_length",),
}
"""Those that each policy takes."""
PARAMETERS_OF_POLICIES = tuple(dict.fromkeys(name for names in PARAMETERS.values() for name in names))
"""All of them, once."""
DRAFTING = ("chain", "tree")
"""Policies whose steps verify drafted tokens."""
RULES: tuple[str, ...] = get_args(Rule)
SKIPPED_KV: tuple[str, ...] = get_args(SkippedKV)
ACCEPTANCE: tuple[str, ...] = get_args(Acceptance)
EARLY = "early"
SHORT: dict[str, tuple[str, ...]] = {
    "rule": RULES,
    "kv": SKIPPED_KV,
    "acceptance": ACCEPTANCE,
    "early_rejection": (EARLY,),
}
"""What may follow the name of a policy, as in `exact:margin`."""
DEFAULT_CTX = 4096  # tokens
DEFAULT_KV_TYPE: KVType = "f16"
NO_DRAFTER = "none"
NO_DEVICES = ("none", "cpu")
"""Names with which `device` says that the CPU computes alone."""

_STRICT = ConfigDict(strict=True)  # a text is no number, and true is not 1


@dataclass(frozen=True, config=_STRICT)
class LoadOptions:
    """Which model, and on what. `n_ctx` and `threads` None: chosen for the model and the machine.

    `drafter`: a small model that drafts for it, or NO_DRAFTER; None: the one that belongs to it, if that is here.
    `chats`: whether drafts come from the user's earlier chats, and draft heads learn from them.
    `kv_type`: what keys and values of the tokens in the window are kept in.
    The first `gpu_layers` of its layers are on other devices than the CPU, which `rpc` (workers) and `device` choose;
    None: as many as there is room for where one of these is given, else none. `tensor_split` shares them out.
    `cpu_fallback`: when a device fails, the others go on, or the CPU alone; `has_lost`: one has failed.
    `n_slots` chats at most are answered at once, each with a window of n_ctx tokens: fewer where memory is short.
    """

    model: FileName | None = None
    drafter: FileName | None = None
    n_ctx: ContextTokens | None = None
    threads: Threads | None = None
    gpu_layers: GivenGpuLayers | None = None
    data_dir: FileName | None = None
    offline: bool = False
    n_slots: Slots = 1
    chats: bool = True
    kv_type: KVType = DEFAULT_KV_TYPE
    rpc: Endpoints | None = None
    device: DeviceNames | None = None
    tensor_split: TensorSplit | None = None
    cpu_fallback: bool = False
    has_lost: bool = False

    @property
    def has_devices(self) -> bool:
        """Whether layers go to a device beside the CPU if there is one, and room on it."""
        if self.device is not None and self.device.casefold() in NO_DEVICES:
            return False
        given = self.rpc is not None or self.device is not None
        return given if self.gpu_layers is None else self.gpu_layers != 0

    @property
    def on_cpu(self) -> LoadOptions:
        """The same for the CPU alone."""
        return replace(self, gpu_layers=None, rpc=None, device=None, tensor_split=None, has_lost=False)

    def without(self, worker: str | None) -> LoadOptions:
        """The same without a device that has failed: with the other workers if it was one, else for the CPU alone.

        Where devices are named, the CPU goes on alone: workers that are left would have other names.
        """
        left = [one for one in names(self.rpc) if str(endpoint.parse(one)) != worker]
        if worker is None or self.device is not None or not left or len(left) == len(names(self.rpc)):
            return self.on_cpu
        return replace(self, rpc=",".join(left), tensor_split=None, has_lost=True)


@dataclass(frozen=True, config=_STRICT)
class Sampling:
    """How a token is drawn.

    The defaults suit a small chat model: plain greedy answers of such models mostly end in a loop. `temperature` 0 is
    greedy; together with `repeat_penalty` 1 it is plain greedy, which the comparisons use.
    """

    temperature: Temperature = 0.6
    top_k: TopK = 40
    top_p: TopP = 0.95
    min_p: MinP = 0.05
    repeat_penalty: RepeatPenalty = 1.1
    repeat_last_n: RepeatLastN = 64
    seed: Seed | None = None
    presence_penalty: AdditivePenalty = 0.0
    frequency_penalty: AdditivePenalty = 0.0
    logit_bias: LogitBias = ()
    """Tokens, and what is added to their logits."""


PLAIN_GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, seed=0)


@dataclass(frozen=True, config=_STRICT)
class PolicyChoice:
    """A policy with its parameters. None means: the policy's own default, for `threshold` the calibrated one.

    `kv` says how keys and values of skipped layers come about (policy specee): see SKIPPED_KV. `acceptance` says which
    drafted tokens stand (policies chain and tree): see ACCEPTANCE. `draft_length`: so many tokens are drafted in every
    step; with it, exact and specee draft too. `early_rejection` (policy chain): drafts may leave at an exit layer.

    Raises AppError for a parameter that the policy does not take.
    """

    name: PolicyName = "auto"
    threshold: Threshold | None = None
    rule: Rule | None = None
    kv: SkippedKV | None = None
    max_pending: MaxPending | None = None
    acceptance: Acceptance | None = None
    draft_length: DraftLength | None = None
    early_rejection: bool = False

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value not in (None, False) and not self.takes(field.name):
                raise AppError(
                    "not for this policy", f"{self.name} has no {_words(field.name)}; {_takers(field.name)}", USAGE
                )
        if self.rule == "margin" and self.draft_length is not None:
            why = "drafted tokens skip layers by the rule predictor; leave out margin, or the draft length"
            raise AppError("these exclude each other", why, USAGE)

    def takes(self, parameter: str) -> bool:
        """Whether the policy has this parameter, a field of this class."""
        return parameter in PARAMETERS[self.name]

    @property
    def drafts(self) -> bool:
        """Whether tokens are drafted."""
        return self.name in DRAFTING or self.draft_length is not None

    @property
    def needs_calibration(self) -> bool:
        """Whether it runs only on a calibrated model."""
        return self.name in ("exact", "specee", "pipelined") or self.early_rejection

    @property
    def runs_whole_rows(self) -> bool:
        """Whether a model will do that cannot run in ranges of layers."""
        return self.name == "dense" or (self.name == "chain" and not self.early_rejection)

    @property
    def is_lossless(self) -> bool:
        """Whether the text is the dense model's."""
        return self.name != "specee" and self.acceptance != "typical"

    @classmethod
    def parse(cls, spec: str) -> PolicyChoice:
        """`specee`, `specee@0.5` (threshold), `specee:margin`, `exact`, `specee:complete`, `specee:margin@0.3`,
        `chain:rejection`, `chain:early`."""
        head, at, threshold = spec.strip().partition("@")
        name: Any
        name, *parts = head.split(":")
        if name not in POLICIES:
            raise AppError("unknown policy", f"{shown(name)}; choose from {', '.join(POLICIES)}", USAGE)
        given: dict[str, Any] = {}
        for part in parts:
            parameter = next((p for p in PARAMETERS[name] if part in SHORT.get(p, ())), None)
            if parameter is None:
                known = ", ".join(word for p in PARAMETERS[name] for word in SHORT.get(p, ()))
                why = f"{name} can be followed by {known}" if known else f"nothing can follow {name}"
                raise AppError("unknown policy", f"{shown(part)} in {shown(spec)}; {why}", USAGE)
            if parameter in given:
                raise AppError("these exclude each other", f"{part} and what is before it in {shown(spec)}", USAGE)
            given[parameter] = True if part == EARLY else part
        return cls(name, parse_threshold(threshold) if at else None, **given)

    @property
    def label(self) -> str:
        """The spec that `parse` reads back (without max_pending and draft_length)."""
        early = EARLY if self.early_rejection else None
        parts = [self.name, *(part for part in (self.rule, self.kv, self.acceptance, early) if part)]
        return ":".join(parts) + ("" if self.threshold is None else f"@{self.threshold:g}")


def _words(parameter: str) -> str:
    return parameter.replace("_", " ")


def _takers(parameter: str) -> str:
    names = [name for name, taken in PARAMETERS.items() if parameter in taken]
    return f"{' and '.join(names)} {'have' if names[1:] else 'has'} it"


def parse_threshold(text: str) -> float | None:
    """A number in [0, 1], or "calibrated" (None)."""
    given: float | str = check(GivenThreshold, "threshold", text)
    return None if given == CALIBRATED else float(given)


@dataclass(frozen=True, config=_STRICT)
class ChatOptions:
    """Everything about one answer."""

    policy: PolicyChoice = PolicyChoice()
    sampling: Sampling = Sampling()
    max_tokens: MaxTokens = 1024
    """With those of its thoughts."""
    think: Think = "auto"
    """Whether a model that can be told so thinks before it answers, and how much."""
    think_tokens: ThinkTokens | None = None
    """A thought that gets so long is ended."""
    stop: StopSequences = ()
    """Texts that end the answer, and are no part of it; a thought may have them."""
    grammar: Text | None = None
    """In GBNF, with the rule "root": the answer keeps to it, after its thoughts."""
    json_schema: Text | None = None
    """The same by a JSON schema, in JSON; {"type": "object"} stands for any object."""
    top_logprobs: TopLogprobs | None = None
    """So many of the likeliest tokens travel with each token of the answer, and their logprobs; None: no logprobs."""


DEFAULT_CHAT = ChatOptions()
OF_ANSWER: dict[str, Any] = {"max_tokens": MaxTokens, "think": Think, "think_tokens": ThinkTokens | None}
"""What a chat keeps of ChatOptions, beside policy and sampling."""


def replace_sampling(base: Sampling, given: dict[str, Any]) -> Sampling:
    """`base` with what the user gave."""
    return replace(base, **given)


def remember(options: ChatOptions, model: str | None = None, drafter: str | None = None) -> dict[str, Any]:
    """What a chat keeps of how it was asked, and who answered, as JSON has it."""
    sampling = {**asdict(options.sampling), "logit_bias": [list(pair) for pair in options.sampling.logit_bias]}
    who = {"model": model, "drafter": drafter}
    of_answer = {name: getattr(options, name) for name in OF_ANSWER}
    return {"policy": options.policy.label, **of_answer, **sampling, **who}


class Recalled(NamedTuple):
    """How a kept chat goes on, and who answered it (model None: not kept).

    `refused`: a line that says which kept values cannot be; defaults stand for them.
    """

    options: ChatOptions
    model: str | None = None
    drafter: str | None = None
    refused: str | None = None


def recall(kept: Mapping[str, Any] | None) -> Recalled:
    """The inverse of `remember`; what is missing, or is not allowed, has its default. None: it could not be read."""
    if kept is None:
        return Recalled(ChatOptions(), refused="its settings cannot be read; defaults stand for them now")
    of_sampling = get_type_hints(Sampling, include_extras=True)
    kinds = {**of_sampling, **OF_ANSWER, "model": FileName | None, "drafter": FileName | None}
    found: dict[str, Any] = {}
    refused: list[str] = []
    for name in kinds.keys() & kept.keys():
        try:
            found[name] = TypeAdapter(kinds[name]).validate_python(_tuples(kept[name]), strict=True)
        except ValidationError:
            refused.append(f"{name} {shown(kept[name])} (not {allowed(kinds[name])})")
    policy = PolicyChoice()
    try:
        # chats of earlier versions have "settle" for "complete"
        policy = PolicyChoice.parse(str(kept.get("policy", "auto")).replace(":settle", ":complete"))
    except AppError:
        refused.append(f"policy {shown(kept['policy'])}")
    sampling = Sampling(**{name: found[name] for name in of_sampling.keys() & found.keys()})
    options = ChatOptions(policy, sampling, **{name: found[name] for name in OF_ANSWER.keys() & found.keys()})
    line = f"it was kept with {', '.join(sorted(refused))}: defaults stand for that now" if refused else None
    return Recalled(options, found.get("model"), found.get("drafter"), line)


def _tuples(value: Any) -> Any:
    """JSON has lists only."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
