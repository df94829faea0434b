"""The last answers of all chats: what the engine process reads of the history, without writing to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from specee.app.chat.history.reading import heal

MAX_CHARACTERS = 100_000  # some 25,000 tokens, read in a tenth of a second
BUSY_SECONDS = 0.2


def recent_answers(path: Path, max_characters: int = MAX_CHARACTERS) -> list[str]:
    """The newest answers first, together at most so long; none where there is no history that can be read."""
    sql = "SELECT content FROM turns WHERE role = 'assistant' ORDER BY id DESC LIMIT 1000"
    return [answer for (answer,) in _recent(path, sql, max_characters)]


def recent_exchanges(path: Path, max_characters: int) -> list[tuple[str, str]]:
    """Questions, with the files that went with them, and their complete answers, likewise."""
    sql = (
        "SELECT question.content || question.attached, answer.content FROM turns AS answer"
        " JOIN turns AS question ON answer.parent_id = question.id"
        " WHERE answer.role = 'assistant' AND answer.state = 'complete' ORDER BY answer.id DESC"
    )
    return [(question, answer) for question, answer in _recent(path, sql, max_characters)]


def _recent(path: Path, sql: str, max_characters: int) -> list[tuple[str, ...]]:
    if not path.is_file():
        return []
    found: list[tuple[str, ...]] = []
    room = max_characters
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", timeout=BUSY_SECONDS, uri=True)) as connection:
            heal(connection)
            for texts in connection.execute(sql):
                room -= sum(map(len, texts))
                if room < 0:
                    break
                found.append(texts)
    except (sqlite3.Error, TypeError):
        return []  # what is wrong with the file, the history itself says
    return found
