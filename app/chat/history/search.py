"""Searching in all chats: for words, parts of words, signs (C++), and text without spaces between words; capitals and
accents make no difference."""

from __future__ import annotations

import sqlite3

from specee.app.chat.history.folding import fold, place
from specee.app.chat.history.records import Hit

INDEXED = 3  # characters: the index knows sequences of so many, what is shorter is looked for in every turn
BEFORE, AROUND = 30, 100  # characters of an excerpt, before the match and in all


def words_in(text: str) -> list[str]:
    """What is looked for, as texts are compared; nothing in a text that has only spaces and what is invisible."""
    return fold(text.replace("\0", " ")).split()


def find(db: sqlite3.Connection, text: str, limit: int) -> list[Hit]:
    """Turns with all the words of `text` somewhere in them; the best matches first."""
    words = words_in(text)
    if not words:
        return []
    long = [word for word in words if len(word) >= INDEXED]
    short = [word for word in words if len(word) < INDEXED]
    sql = "SELECT turns.chat_id, chats.title, turns.id, turns.role, turns.content FROM words"
    sql += " JOIN turns ON turns.id = words.rowid JOIN chats ON chats.id = turns.chat_id WHERE true"
    values: list[str | int] = []
    if long:
        sql += " AND words MATCH ?"
        values.append(" ".join('"' + word.replace('"', '""') + '"' for word in long))
    sql += " AND instr(words.content, ?)" * len(short)
    sql += f" ORDER BY {'rank, ' if long else ''}turns.id DESC LIMIT ?"
    rows = db.execute(sql, (*values, *short, limit))
    return [Hit(chat, title, turn, role, _excerpt(content, words)) for chat, title, turn, role, content in rows]


def _excerpt(content: str, words: list[str]) -> str:
    """The text around the first match."""
    at = min((found for word in words if (found := place(content, word)) is not None), default=0)
    begin = max(0, at - BEFORE)
    excerpt = " ".join(content[begin : begin + AROUND].split())
    return f"{'…' if begin else ''}{excerpt}{'…' if begin + AROUND < len(content) else ''}"
