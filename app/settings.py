"""The type and the bounds of every value a user can set: command line, config.toml, /set, stored chats and HTTP check
by these."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, Field, InstanceOf, TypeAdapter, ValidationError

from specee.app.errors import SHOWN_CHARACTERS, USAGE, AppError
from specee.native import endpoint

CALIBRATED = "calibrated"
LEAST_TEMPERATURE = 1e-6


def _is_name(text: str) -> str:
    if not text:
        raise ValueError("nothing")
    return _without_nul(text)


def _greedy_near_zero(temperature: float) -> float:
    """Such a temperature chooses as 0 does, but logits divided by it may leave the range of a float32."""
    return temperature if temperature >= LEAST_TEMPERATURE else 0.0


def names(text: str | None) -> tuple[str, ...]:
    """What a list with commas names."""
    return () if text is None else tuple(part.strip() for part in text.split(","))


def _each_once(text: str) -> str:
    parts = names(text)
    if not all(parts) or len(set(parts)) < len(parts):
        raise ValueError("nothing, or something twice")
    return _without_nul(text)


def _are_endpoints(text: str) -> str:
    endpoint.parse_all(text)
    return _without_nul(text)


def _are_shares(text: str) -> str:
    shares = names(text)
    if not all(_WRITTEN["number"].fullmatch(share) and math.isfinite(float(share)) for share in shares):
        raise ValueError("no number")
    if min(map(float, shares)) < 0.0 or max(map(float, shares)) == 0.0:
        raise ValueError("nothing, or less")
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("NUL characters")
    return text


# ---- how a token is chosen -----------------------------------------------------------------------------------------

Temperature = Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False), AfterValidator(_greedy_near_zero)]
TopK = Annotated[int, Field(ge=0, le=1_000_000)]  # 0: all
TopP = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
MinP = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
RepeatPenalty = Annotated[float, Field(ge=0.01, le=10.0, allow_inf_nan=False)]
AdditivePenalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]  # presence and frequency
RepeatLastN = Annotated[int, Field(ge=0, le=8192)]  # tokens
Token = Annotated[int, Field(ge=0, le=2**31 - 1)]
Bias = Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]  # added to a logit
LogitBias = Annotated[
    tuple[tuple[Token, Bias], ...],
    Field(max_length=1024, description="pairs of a token and a number from -100 to 100"),
]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]
Think = Literal["auto", "on", "off", "low", "medium", "high"]  # auto: as the chat template has it
ThinkTokens = Annotated[int, Field(ge=1, le=1_000_000)]
StopSequence = Annotated[str, Field(min_length=1, max_length=1000)]  # characters
StopSequences = Annotated[tuple[StopSequence, ...], Field(max_length=4)]  # as the chat completions API has it

SAMPLING: dict[str, Any] = {
    "temperature": Temperature,
    "repeat_penalty": RepeatPenalty,
    "repeat_last_n": RepeatLastN,
    "presence_penalty": AdditivePenalty,
    "frequency_penalty": AdditivePenalty,
    "top_k": TopK,
    "top_p": TopP,
    "min_p": MinP,
    "seed": Seed,
}
"""The parameters that `/set` knows."""

# ---- policies ------------------------------------------------------------------------------------------------------

PolicyName = Literal["auto", "dense", "chain", "tree", "exact", "specee", "pipelined"]
Threshold = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
GivenThreshold = Threshold | Literal["calibrated"]
Rule = Literal["predictor", "margin"]
SkippedKV = Literal["propagate", "complete"]
Acceptance = Literal["exact", "rejection", "typical"]
DraftLength = Annotated[int, Field(ge=1, le=7)]  # tokens a step
MaxPending = Annotated[int, Field(ge=1, le=7)]  # rows

# ---- model and machine ---------------------------------------------------------------------------------------------

# bytes that are no UTF-8 may be in it
FileName = Annotated[InstanceOf[str], AfterValidator(_is_name), Field(description="a name")]
ContextTokens = Annotated[int, Field(ge=16, le=10_000_000)]
Threads = Annotated[int, Field(ge=1, le=1024)]
KVType = Literal["f16", "q8_0"]  # of keys and values in the context window
GpuLayers = Annotated[int, Field(ge=0, le=10_000)]
GivenGpuLayers = GpuLayers | Literal["auto"]  # auto: as many as there is room for
DeviceNames = Annotated[
    str, AfterValidator(_each_once), Field(description="a device's name, or several with commas, each once")
]
Endpoints = Annotated[
    str,
    AfterValidator(_are_endpoints),
    Field(description="HOST:PORT, or several with commas, each once"),
]
TensorSplit = Annotated[
    str,
    AfterValidator(_are_shares),
    Field(description="a number for each device, with commas, such as 3,1, and not all of them 0"),
]
Slots = Annotated[int, Field(ge=1, le=64)]
ApiKey = Annotated[str, Field(pattern=r"^[\x21-\x7e]+$", description="a text in ASCII without spaces")]
Origin = Annotated[
    str,
    Field(pattern=r"^(\*|https?://[^\s/]+)$", description="'*' or a web page's origin, such as https://example.com"),
]
Port = Annotated[int, Field(ge=0, le=65535)]
WORKER_PORT = endpoint.DEFAULT_PORT

# ---- the rest ------------------------------------------------------------------------------------------------------

Text = Annotated[str, AfterValidator(_without_nul), Field(description="text in UTF-8")]
Ascii = Literal["auto", "on", "off"]  # auto: where the terminal cannot show Unicode
WhenFull = Literal["stop", "drop", "summarize"]
Purpose = Literal["chat", "code", "small", "reasoning"]
ChatId = Annotated[int, Field(ge=1, le=2**63 - 1)]  # as SQLite counts
Count = Annotated[int, Field(ge=1, le=1_000_000)]  # of prompts, rounds, lines, branches
TrainingTokens = Annotated[int, Field(ge=2_000, le=100_000_000)]
Minutes = Annotated[float, Field(gt=0, le=100_000)]
CalibrationTokens = Annotated[int, Field(ge=500, le=10_000_000)]


_WRITTEN = {
    "integer": re.compile(r"[+-]?[0-9]+"),
    "number": re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"),
}
"""How numbers are written, wherever they come from as text: nothing groups their digits, and a whole number has no
point (1.0 is none in config.toml either)."""


def read(kind: Any, value: object, *, typed: bool = True) -> Any:
    """`value` as this type: a text as users type it (unless it is not `typed`), or a value of the type.

    Raises ValueError, which says what it must be.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        if not (typed and isinstance(value, str)):
            return adapter.validate_python(value, strict=True)
        if not _may_be_read(adapter.json_schema(), value):
            raise ValueError
        return adapter.validate_strings(value)
    except ValueError as error:  # a ValidationError is one
        if isinstance(error, ValidationError) and (why := _said_by_type(error)) is not None:
            raise ValueError(why) from None
        given = "what is given" if kind is ApiKey else shown(value)  # a secret
        raise ValueError(f"{given} is not {allowed(kind)}") from None


def _said_by_type(error: ValidationError) -> str | None:
    """What the type itself says to the user of a value that it refuses."""
    cause = error.errors(include_url=False)[0].get("ctx", {}).get("error")
    return str(cause) if isinstance(cause, endpoint.BadEndpointError) else None


def _may_be_read(schema: dict[str, Any], text: str) -> bool:
    kinds = schema.get("anyOf", [schema])
    if text in [kind.get("const") for kind in kinds]:
        return True
    numbers = [_WRITTEN[kind["type"]] for kind in kinds if kind.get("type") in _WRITTEN]
    return not numbers or any(written.fullmatch(text) for written in numbers)


def check(kind: Any, name: str, value: object) -> Any:
    """The same for a setting of this name. Raises AppError."""
    try:
        return read(kind, value)
    except ValueError as error:
        raise AppError("bad value", f"{name}: {error}", USAGE) from None


def allowed(kind: Any) -> str:
    """What a value of this type may be, in words: "a number from 0 to 1"."""
    return _in_words(TypeAdapter(kind).json_schema())


def choices(kind: Any) -> tuple[str, ...]:
    """The names that a value of this type can be; none of a number or a text."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def shown(value: object) -> str:
    """A value that a user gave, as an error names it: as JSON and TOML write it, not as Python does."""
    try:
        text = _written(value)
    except ValueError:  # an integer of thousands of digits
        text = "that number"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _written(value: object) -> str:
    if isinstance(value, str):
        return repr(_with_signs(value))
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_written(key)}: {_written(one)}" for key, one in value.items()) + "}"
    return str(value)


def _with_signs(text: str) -> str:
    """Bytes that are no text, which Python has as halves of surrogate pairs, as signs."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _in_words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_in_words(one) for one in schema["anyOf"] if one != {"type": "null"})
    if "enum" in schema or "const" in schema:
        choices = [_written(choice) for choice in schema.get("enum", [schema.get("const")])]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if "description" in schema:
        return str(schema["description"])
    what = "a number" if schema["type"] == "number" else "a whole number"
    lowest = str(schema.get("minimum", schema.get("exclusiveMinimum"))).removesuffix(".0")
    above = "above" if "exclusiveMinimum" in schema else "from"
    return f"{what} {above} {lowest} to {str(schema['maximum']).removesuffix('.0')}"
