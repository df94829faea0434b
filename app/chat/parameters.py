"""What `/set` knows: its parameters as they are read and shown, words for their defaults, and what sets the rest."""

from __future__ import annotations

from typing import Any

from specee.app.errors import USAGE, AppError
from specee.app.options import DEFAULT_KV_TYPE, ChatOptions, Sampling
from specee.app.settings import SAMPLING, FileName, KVType, Think, ThinkTokens, check, shown

DRAFTER = "drafter"
KV_TYPE = "kv_type"
THINKING: dict[str, Any] = {"think": Think, "think_tokens": ThinkTokens}
NAMES = (*SAMPLING, *THINKING, DRAFTER, KV_TYPE)
DEFAULT = "default"
SEEDS_AT_RANDOM = "random"
OF_THE_MODEL = "of the model"

_OPTIONS = (
    *(
        "max_tokens",
        "threads",
        "gpu_layers",
        "rpc",
        "device",
        "tensor_split",
        "cpu_fallback",
        "acceptance",
        "draft_length",
        "early_rejection",
        "rule",
        "kv",
    ),
    *("max_pending", "when_full", "offline", "data_dir"),
)
"""Of the command line, for which there is no command."""
_OTHER_NAMES = {"n_ctx": "ctx", "context": "ctx", "n_predict": "max_tokens", "system_message": "system"}


def default_word(name: str) -> str:
    """How the default of a parameter is called, where it has no value."""
    return {"seed": SEEDS_AT_RANDOM, DRAFTER: OF_THE_MODEL}.get(name, DEFAULT)


def read(name: str, text: str) -> Any:
    """The value of a parameter of Sampling. Raises AppError."""
    words = (default_word(name), DEFAULT, *(("none", "") if name == "seed" else ()))
    if text.lower() in words:
        return getattr(Sampling(), name)
    return _or_default(name, SAMPLING[name], text)


def read_thinking(name: str, text: str) -> Any:
    """The value of a parameter of THINKING. Raises AppError."""
    if text.lower() == DEFAULT:
        return getattr(ChatOptions(), name)
    return _or_default(name, THINKING[name], text)


def read_drafter(text: str) -> str | None:
    """None: the one that belongs to the model. Raises AppError."""
    if text.lower() in (OF_THE_MODEL, DEFAULT):
        return None
    return str(_or_default(DRAFTER, FileName, text))


def read_kv_type(text: str) -> KVType:
    """Raises AppError."""
    kv_type: KVType = DEFAULT_KV_TYPE if text.lower() == DEFAULT else _or_default(KV_TYPE, KVType, text)
    return kv_type


def _or_default(name: str, kind: Any, text: str) -> Any:
    try:
        return check(kind, name, text)
    except AppError as error:
        way_back = f"; /set {name} {default_word(name)} takes the default"
        raise AppError(error.title, error.message + way_back, error.exit_code) from None


def value_words(name: str, value: object) -> str:
    """A value as `/set` reads it."""
    return default_word(name) if value is None else str(value)


def listed(options: ChatOptions, drafter: str | None, kv_type: KVType) -> str:
    """All parameters with their values."""
    values = {name: getattr(options.sampling, name) for name in SAMPLING}
    values |= {name: getattr(options, name) for name in THINKING} | {DRAFTER: drafter, KV_TYPE: kv_type}
    return ", ".join(f"{name} {value_words(name, value)}" for name, value in values.items())


def no_such(name: str, commands: tuple[str, ...], known: str) -> AppError:
    """For a name that is no parameter: which command or option it is of, or all there are."""
    name = _OTHER_NAMES.get(name, name)
    if f"/{name}" in commands:
        return AppError("no such parameter", f"{name} has a command of its own: /{name}", USAGE)
    if name in _OPTIONS:
        option = f"--{name.replace('_', '-')}"
        return AppError("no such parameter", f"{name} is an option: start specee-chat with {option}", USAGE)
    return AppError("no such parameter", f"{shown(name)}; there are: {known}", USAGE)
