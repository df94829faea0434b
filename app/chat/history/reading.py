"""How the history's values are read. Others may have changed the file: what is a text in it comes as one."""

from __future__ import annotations

import sqlite3
from typing import Any

BINARY = "depths"
"""The only column that is no text and no number."""


def heal(connection: sqlite3.Connection) -> None:
    """For each connection that reads: bytes are the text that they are in UTF-8."""
    connection.text_factory = _text
    connection.row_factory = _row


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "replace")


def _row(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
    if not any(isinstance(value, bytes) for value in row):
        return row
    names = [column[0] for column in cursor.description]
    return tuple(
        _text(value) if isinstance(value, bytes) and name != BINARY else value
        for name, value in zip(names, row, strict=True)
    )
