"""What the server says of itself."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Health(TypedDict):
    status: Literal["ok"]


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


def model(name: str) -> Model:
    """The loaded model, which has no date."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "local"}
