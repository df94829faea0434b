"""The last answers of all chats: what the engine process reads of the history, without writing to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

MAX_CHARACTERS = 100_000  # some 25,000 tokens, read in a tenth of a second
BUSY_SECONDS = 0.2


def recent_answers(path: Path, max_characters: int = MAX_CHARACTERS) -> list[str]:
    """The newest answers first, together at most so long; none where there is no history that can be read."""
    if not path.is_file():
        return []
    sql = "SELECT content FROM turns WHERE role = 'assistant' ORDER BY id DESC LIMIT 1000"
    answers: list[str] = []
    room = max_characters
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", timeout=BUSY_SECONDS, uri=True)) as connection:
            for (answer,) in connection.execute(sql):
                room -= len(answer)
                if room < 0:
                    break
                answers.append(answer)
    except (sqlite3.Error, TypeError):
        return []  # what is wrong with the file, the history itself says
    return answers
