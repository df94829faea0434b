"""What can be chosen, as small frozen values that travel to the engine process."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from specee.app.errors import USAGE, AppError

POLICIES: dict[str, tuple[str, ...]] = {
    "auto": (),
    "dense": (),
    "chain": ("acceptance", "draft_length", "early_rejection"),
    "tree": ("acceptance", "draft_length"),
    "exact": ("rule", "threshold", "max_pending", "draft_length"),
    "specee": ("rule", "kv", "threshold", "max_pending", "draft_length"),
    "pipelined": (),
}
"""The parameters that each policy takes."""
DRAFTING = ("chain", "tree")
"""Policies whose steps verify drafted tokens."""
RULES = ("predictor", "margin")
SKIPPED_KV = ("propagate", "complete")
ACCEPTANCE = ("exact", "rejection", "typical")
EARLY = "early"
SHORT: dict[str, tuple[str, ...]] = {
    "rule": RULES,
    "kv": SKIPPED_KV,
    "acceptance": ACCEPTANCE,
    "early_rejection": (EARLY,),
}
"""What may follow the name of a policy, as in `exact:margin`."""
MAX_DRAFT_LENGTH = 7  # tokens: with the row before them, so many rows get the bits of single ones
WHEN_FULL = ("stop", "drop", "summarize")
DEFAULT_CTX = 4096  # tokens
NO_DRAFTER = "none"


@dataclass(frozen=True)
class LoadOptions:
    """Which model, and on what. `n_ctx` and `threads` None: chosen for the model and the machine.

    `drafter`: a small model that drafts for it, or NO_DRAFTER; None: the one that belongs to it, if that is here.
    `n_slots` chats at most are answered at once, each with a window of n_ctx tokens: fewer where memory is short.
    """

    model: str | None = None
    drafter: str | None = None
    n_ctx: int | None = None
    threads: int | None = None
    gpu_layers: int = 0
    data_dir: str | None = None
    offline: bool = False
    n_slots: int = 1


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    The defaults suit a small chat model: plain greedy answers of such models mostly end in a loop. `temperature` 0 is
    greedy; together with `repeat_penalty` 1 it is plain greedy, which the comparisons use.
    """

    temperature: float = 0.6
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.1
    repeat_last_n: int = 64
    seed: int | None = None


PLAIN_GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, seed=0)


@dataclass(frozen=True)
class PolicyChoice:
    """A policy with its parameters. None means: the policy's own default, for `threshold` the calibrated one.

    `kv` says how keys and values of skipped layers come about (policy specee): see SKIPPED_KV. `acceptance` says which
    drafted tokens stand (policies chain and tree): see ACCEPTANCE. `draft_length`: so many tokens are drafted in every
    step; with it, exact and specee draft too. `early_rejection` (policy chain): drafts may leave at an exit layer.

    Raises AppError for a parameter that the policy does not take.
    """

    name: str = "auto"
    threshold: float | None = None
    rule: str | None = None
    kv: str | None = None
    max_pending: int | None = None
    acceptance: str | None = None
    draft_length: int | None = None
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
        return parameter in POLICIES[self.name]

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
        name, *parts = head.split(":")
        if name not in POLICIES:
            raise AppError("unknown policy", f"{name!r}; choose from {', '.join(POLICIES)}", USAGE)
        given: dict[str, Any] = {}
        for part in parts:
            parameter = next((p for p in POLICIES[name] if part in SHORT.get(p, ())), None)
            if parameter is None:
                known = ", ".join(word for p in POLICIES[name] for word in SHORT.get(p, ()))
                why = f"{name} can be followed by {known}" if known else f"nothing can follow {name}"
                raise AppError("unknown policy", f"{part!r} in {spec!r}; {why}", USAGE)
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
    names = [name for name, taken in POLICIES.items() if parameter in taken]
    return f"{' and '.join(names)} {'have' if names[1:] else 'has'} it"


def parse_threshold(text: str) -> float | None:
    """A number in [0, 1], or "calibrated" (None)."""
    if text == "calibrated":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise AppError("bad threshold", f"{text!r} is neither a number from 0 to 1 nor 'calibrated'", USAGE)
    return value


@dataclass(frozen=True)
class ChatOptions:
    """Everything about one answer."""

    policy: PolicyChoice = PolicyChoice()
    sampling: Sampling = Sampling()
    max_tokens: int = 1024


DEFAULT_CHAT = ChatOptions()


def replace_sampling(base: Sampling, given: dict[str, Any]) -> Sampling:
    """`base` with what the user gave."""
    return replace(base, **given)


def remember(options: ChatOptions) -> dict[str, Any]:
    """What a chat keeps of how it was asked."""
    return {"policy": options.policy.label, "max_tokens": options.max_tokens, **asdict(options.sampling)}


def recall(kept: dict[str, Any]) -> ChatOptions:
    """The inverse of `remember`; what is missing has its default."""
    names = {field.name for field in fields(Sampling)}
    sampling = Sampling(**{name: value for name, value in kept.items() if name in names})
    policy = _recall_policy(kept.get("policy", "auto"))
    return ChatOptions(policy, sampling, kept.get("max_tokens", ChatOptions.max_tokens))


def _recall_policy(kept: str) -> PolicyChoice:
    """A policy as a chat keeps it; one of an earlier version that is none any more is `auto`."""
    try:
        return PolicyChoice.parse(kept.replace(":settle", ":complete"))
    except AppError:
        return PolicyChoice()
