"""Searching in all chats: for words, parts of words, signs (C++), and text without spaces between words."""

from __future__ import annotations

import sqlite3
import unicodedata

from specee.app.chat.history.records import Hit

INDEXED = 3  # characters: the index knows sequences of so many, what is shorter is looked for in every turn
BEFORE, AROUND = 30, 100  # characters of an excerpt, before the match and in all


def find(db: sqlite3.Connection, text: str, limit: int) -> list[Hit]:
    """Turns with all the words of `text` somewhere in them, in capitals or not; the best matches first."""
    words = unicodedata.normalize("NFC", text.replace("\0", " ")).split()
    if not words:
        return []
    long = [word for word in words if len(word) >= INDEXED]
    short = [word.casefold() for word in words if len(word) < INDEXED]
    sql = "SELECT turns.chat_id, chats.title, turns.id, turns.role, turns.content FROM turns"
    sql += " JOIN chats ON chats.id = turns.chat_id"
    values: list[str | int] = []
    if long:
        sql += " JOIN words ON words.rowid = turns.id WHERE words MATCH ?"
        values.append(" ".join('"' + word.replace('"', '""') + '"' for word in long))
    else:
        sql += " WHERE turns.state <> 'streaming'"
    sql += " AND contains(turns.content, ?)" * len(short)
    sql += f" ORDER BY {'rank, ' if long else ''}turns.id DESC LIMIT ?"
    db.create_function("contains", 2, _contains, deterministic=True)
    rows = db.execute(sql, (*values, *short, limit))
    return [Hit(chat, title, turn, role, _excerpt(content, words)) for chat, title, turn, role, content in rows]


def _contains(content: str, word: str) -> bool:
    """`word` in small letters."""
    return word in content.casefold()


def _excerpt(content: str, words: list[str]) -> str:
    """The text around the first match."""
    small = content.casefold()
    at = min((place for word in words if (place := small.find(word.casefold())) >= 0), default=0)
    begin = max(0, at - BEFORE)
    excerpt = " ".join(content[begin : begin + AROUND].split())
    return f"{'…' if begin else ''}{excerpt}{'…' if begin + AROUND < len(content) else ''}"
