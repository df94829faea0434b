"""Why an answer cannot be kept to a JSON schema."""

from __future__ import annotations

from typing import Any

from specee.app.errors import USAGE, AppError

MAX_COUNT = 2000  # of items and characters that a schema asks for, as llama.cpp's grammars have it
SHOWN_CHARACTERS = 100  # of a path


class SchemaError(AppError):
    """`path`: where in the schema it stands."""

    def __init__(self, why: str, path: tuple[Any, ...] = ()) -> None:
        place = "/".join(("#", *(str(part).replace("~", "~0").replace("/", "~1") for part in path)))
        if len(place) > SHOWN_CHARACTERS:
            place = f"{place[:SHOWN_CHARACTERS]}…"
        super().__init__("bad JSON schema", f"at {place}: {why}" if path else why, USAGE)
        self.why, self.path = why, path

    def within(self, *path: Any) -> SchemaError:
        """The same for the schema around."""
        return SchemaError(self.why, (*path, *self.path))
