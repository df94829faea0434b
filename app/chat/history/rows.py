"""From rows of the history to records. Others may have changed the file: what cannot be is left out, and the rest of a
chat is there."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from specee.app.chat.history.records import Chat, Turn, unpack

LAST_SECOND = 253_370_764_800.0  # the year 9999 begins then; dates end with it

_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Figures(BaseModel):
    """What is read again of an answer's figures; others may stand beside them."""

    prompt_tokens: int
    tokens: int
    tokens_per_second: _Number = 0.0
    mean_exit_layer: _Number = 0.0
    dense_rate: _Number | None = None
    policy: str = ""
    policy_reason: str = ""
    stop_reason: str = ""
    thought_tokens: int = 0
    prompt_thought_tokens: int = 0
    policy_stats: dict[str, Any] = {}
    drafted: dict[str, list[int]] = {}


def chat(row: dict[str, Any]) -> Chat:
    return Chat(
        **{
            **row,
            "title": _text(row["title"]),
            "created": _seconds(row["created"]),
            "updated": _seconds(row["updated"]),
            "system": None if row["system"] is None else _text(row["system"]),
            "options": _json_object(row["options"]),
        }
    )


def turn(row: dict[str, Any]) -> Turn:
    stats, drafted = _figures(row["stats"])
    return Turn(
        id=row["id"],
        parent=row["parent_id"],
        role=row["role"],
        content=_text(row["content"]),
        state=row["state"],
        created=_seconds(row["created"]),
        cut=None if row["cut"] is None else _text(row["cut"]),
        stats=stats,
        tokens=unpack(row["depths"] if isinstance(row["depths"], bytes) else None, drafted),
        place=row["place"],
        siblings=row["siblings"],
        attached=_text(row["attached"]),
        thought=_text(row["thought"]),
        thought_seconds=_seconds(row["thought_seconds"]),
    )


def _figures(text: str | None) -> tuple[dict[str, Any] | None, dict[str, list[int]]]:
    """An answer's figures, and apart from them what was drafted."""
    found = _json_object(text)
    if found is None:
        return None, {}
    try:
        drafted = _Figures.model_validate(found, strict=True).drafted
    except ValidationError:
        return None, {}
    return {name: value for name, value in found.items() if name != "drafted"}, drafted


def _json_object(text: Any) -> dict[str, Any] | None:
    """None if it is none. What is no number in JSON (NaN, 1e999) comes as text, so that it can be written again."""
    try:
        found = json.loads(text, parse_constant=str, parse_float=_finite)
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _finite(text: str) -> float | str:
    return number if math.isfinite(number := float(text)) else text


def _text(value: Any) -> str:
    return str(value)


def _seconds(value: Any) -> float:
    """A time since 1970."""
    return value if isinstance(value, float) and 0.0 <= value < LAST_SECOND else 0.0
