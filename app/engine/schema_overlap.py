"""Whether schemas exclude each other, as those of `oneOf` must: a grammar allows what any of them allows."""

from __future__ import annotations

from typing import Any

from specee.app.engine.schema_error import SchemaError
from specee.app.engine.schema_references import target
from specee.app.engine.schema_values import KINDS, is_of, same

MAX_STEPS = 100_000  # of the comparisons of one schema
MAX_DEPTH = 8
ALL = frozenset(KINDS)


class Overlap:
    """Compares parts of one schema."""

    def __init__(self, whole: Any) -> None:
        self._whole, self._steps = whole, 0
        self._targets: dict[str, Any] = {}

    def check_one_of(self, branches: list[Any]) -> None:
        """Raises SchemaError unless each value that is written for one of the schemas is none of the others'."""
        for j, second in enumerate(branches):
            for i, first in enumerate(branches[:j]):
                if not (self.excludes(first, second) and self.excludes(second, first)):
                    raise SchemaError(
                        f"'oneOf' must have schemas that exclude each other, such as by a 'const' each, and a value "
                        f"may be both number {i} and number {j}; use 'anyOf'"
                    )

    def excludes(self, written: Any, other: Any, depth: int = 0) -> bool:
        """Whether no value that is written for the first schema is one of the other; False if that is not certain."""
        self._count(1)
        if depth > MAX_DEPTH:
            return False
        written, other = self._plain(written), self._plain(other)
        if not isinstance(written, dict) or not isinstance(other, dict):
            return False
        for name in ("anyOf", "oneOf"):
            if isinstance(written.get(name), list):
                return all(self.excludes(typed(one, written), other, depth + 1) for one in written[name])
            if isinstance(other.get(name), list):
                return all(self.excludes(written, typed(one, other), depth + 1) for one in other[name])
        if not _kinds(written) & _kinds(other):
            return True
        values, others = _values(written), _values(other)
        self._count(len(values or ()) + len(others or ()))
        if values is not None:
            if others is not None:
                return not {same(value) for value in values} & {same(value) for value in others}
            return not any(is_of(value, kind) for value in values for kind in _kinds(other))
        if others is not None:
            return not any(is_of(value, kind) for value in others for kind in _kinds(written))
        return _kinds(written) & _kinds(other) == {"object"} and self._objects_exclude(written, other, depth)

    def _objects_exclude(self, written: Any, other: Any, depth: int) -> bool:
        ours, theirs = written.get("properties", {}), other.get("properties", {})
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            return False
        our_need, their_need = _required(written), _required(other)
        is_closed = written.get("additionalProperties", "properties" not in written) is False
        if is_closed and any(name not in ours for name in their_need):
            return True
        if other.get("additionalProperties") is False and any(name not in theirs for name in our_need):
            return True
        return any(
            name in ours and name in theirs and self.excludes(ours[name], theirs[name], depth + 1)
            for name in (*our_need, *their_need)
        )

    def _plain(self, schema: Any) -> Any:
        """What a reference, or an allOf of one schema, stands for."""
        for _ in range(MAX_DEPTH):
            if isinstance(schema, dict) and isinstance(ref := schema.get("$ref"), str):
                if ref not in self._targets:
                    self._targets[ref] = target(self._whole, schema)
                schema = self._targets[ref]
            if not isinstance(schema, dict) or not isinstance(schema.get("allOf"), list) or len(schema["allOf"]) != 1:
                break
            schema = typed(schema["allOf"][0], schema)
        return schema

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise SchemaError("'oneOf' has too many schemas, or too large ones, to see that they exclude each other")


def typed(branch: Any, around: Any) -> Any:
    """One of several schemas, with the type that stands beside them."""
    if isinstance(branch, dict) and "type" in around and "$ref" not in branch:
        return {"type": around["type"], **branch}
    return branch


def _required(schema: Any) -> list[str]:
    given = schema.get("required")
    return [name for name in given if isinstance(name, str)] if isinstance(given, list) else []


def _values(schema: Any) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    given = schema.get("enum")
    return given if isinstance(given, list) else None


def _kinds(schema: Any) -> frozenset[str]:
    """The types that values may have; what is a whole number is a number, too."""
    given = schema.get("type")
    kinds = {kind for kind in (given if isinstance(given, list) else [given]) if isinstance(kind, str)}
    if not kinds:
        return ALL
    return frozenset({*kinds, "integer"} if "number" in kinds else kinds)
