"""Chats and their turns. A chat is a tree: each turn follows its parent, and the leaf says which branch is used."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from specee.app.chat.history import rows
from specee.app.chat.history.database import DO_WITHOUT, Database
from specee.app.chat.history.recorder import Recorder
from specee.app.chat.history.records import Chat, Hit, Role, State, Turn
from specee.app.chat.history.search import find
from specee.app.errors import USAGE, AppError

TITLE_LENGTH = 60

_CHATS = """
    SELECT id, title, created, updated, leaf, system, options,
           (SELECT count(*) FROM turns WHERE chat_id = chats.id) AS turns FROM chats
"""
# from a leaf up to the root; a damaged file can have a turn that comes before itself: a parent is always older
_BRANCH = """
    WITH RECURSIVE up (id, parent_id, step) AS (
        SELECT id, parent_id, 0 FROM turns WHERE id = ?
        UNION ALL
        SELECT turns.id, turns.parent_id, step + 1 FROM turns JOIN up ON turns.id = up.parent_id AND turns.id < up.id
    )
    SELECT turns.*,
        (SELECT count(*) FROM turns AS s
            WHERE s.chat_id = turns.chat_id AND s.parent_id IS turns.parent_id) AS siblings,
        (SELECT count(*) FROM turns AS s
            WHERE s.chat_id = turns.chat_id AND s.parent_id IS turns.parent_id AND s.id <= turns.id) AS place
    FROM up JOIN turns ON turns.id = up.id ORDER BY step DESC
"""


class NoSuchChatError(AppError):
    """A chat that was never there, or that another program has deleted."""

    def __init__(self, chat_id: object) -> None:
        super().__init__("no such chat", f"{chat_id}; specee-chat history list shows them", USAGE)


class Store:
    """The history in `path`, or in memory. Methods raise AppError; they may be called from any thread."""

    def __init__(self, path: Path | None = None, *, to_read: bool = False, otherwise: str = DO_WITHOUT) -> None:
        self._database = Database(path, to_read=to_read, otherwise=otherwise)
        self.is_kept = path is not None
        """Whether it is there for another process, too."""

    def close(self) -> None:
        self._database.close()

    def hurry_here(self) -> None:
        """Writes of the calling thread fail rather than wait for another program for long."""
        self._database.hurry_here()

    def check(self) -> str:
        """ "ok", or what is wrong with the file."""
        return self._database.check()

    # ---- chats -----------------------------------------------------------------------------------------------------

    def chats(self, limit: int = -1) -> list[Chat]:
        """All chats, the one last used first; at most `limit` of them when it is not negative."""
        return self._database.read(
            lambda db: [rows.chat(row) for row in _rows(db, f"{_CHATS} ORDER BY updated DESC, id DESC LIMIT ?", limit)]
        )

    def chat(self, chat_id: int) -> Chat:
        """Raises AppError when there is none."""
        found = self._database.read(lambda db: _rows(db, f"{_CHATS} WHERE id = ?", chat_id))
        if not found:
            raise NoSuchChatError(chat_id)
        return rows.chat(found[0])

    def new_chat(self, title: str, system: str | None, options: dict[str, Any]) -> Chat:
        """A new, empty chat; its title is the beginning of the first line of `title`."""
        line = next(iter(title.split("\n")), "").strip()
        short = line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1] + "…"
        now = time.time()
        return self.chat(
            self._database.do(
                lambda db: _insert(
                    db,
                    "INSERT INTO chats (title, created, updated, system, options) VALUES (?, ?, ?, ?, ?)",
                    (short, now, now, system, json.dumps(options)),
                )
            )
        )

    def update_chat(self, chat_id: int, **columns: Any) -> Chat:
        """Sets `title`, `system` or `options` of a chat."""
        assert columns.keys() <= {"title", "system", "options"}
        if "options" in columns:
            columns["options"] = json.dumps(columns["options"])
        setters = ", ".join(f"{name} = ?" for name in columns)
        self._database.do(
            lambda db: db.execute(f"UPDATE chats SET {setters} WHERE id = ?", (*columns.values(), chat_id))
        )
        return self.chat(chat_id)

    def delete_chat(self, chat_id: int) -> None:
        """Deletes a chat with all its turns."""
        self.chat(chat_id)
        self._database.do(lambda db: db.execute("DELETE FROM chats WHERE id = ?", (chat_id,)))

    # ---- turns -----------------------------------------------------------------------------------------------------

    def branch(self, chat_id: int, leaf: int | None = None) -> tuple[Turn, ...]:
        """The branch up to the turn `leaf`, else the one in use, oldest turn first; () when that turn is gone."""
        leaf = self.chat(chat_id).leaf if leaf is None else leaf
        return self._database.read(lambda db: tuple(rows.turn(row) for row in _rows(db, _BRANCH, leaf)))

    def tree(self, chat_id: int) -> list[Turn]:
        """All turns of a chat in the order they were made."""
        sql = "SELECT *, 1 AS place, 1 AS siblings FROM turns WHERE chat_id = ? ORDER BY id"
        return self._database.read(lambda db: [rows.turn(row) for row in _rows(db, sql, chat_id)])

    def add_question(self, chat_id: int, parent: int | None, text: str, attached: str = "") -> int:
        """Adds a question, with the text of the files that go with it, under `parent` and makes it the leaf.

        Returns its id.
        """
        return self._database.do(lambda db: self._add(db, chat_id, parent, "user", text, "complete", attached))

    def add_answer(self, chat_id: int, question: int) -> Recorder:
        """Adds an empty answer to a question, which then grows."""
        turn = self._database.do(lambda db: self._add(db, chat_id, question, "assistant", "", "streaming"))
        return Recorder(self._database, self._turn_by_id(turn))

    def continue_answer(self, answer: int) -> Recorder:
        """Lets an answer that stopped grow again. Raises AppError while another program writes it: of two texts in one
        place one would be lost."""
        owner = self._database.owner

        def job(db: sqlite3.Connection) -> None:
            self._database.mark_interrupted(db)  # that program may have been killed since we began
            others = "SELECT 1 FROM turns WHERE id = ? AND state = 'streaming' AND owner IS NOT ?"
            if db.execute(others, (answer, owner)).fetchone() is not None:
                raise AppError("this answer is still being written", "another specee-chat writes it; try again later")
            db.execute("UPDATE turns SET state = 'streaming', owner = ? WHERE id = ?", (owner, answer))

        self._database.do(job)
        return Recorder(self._database, self._turn_by_id(answer))

    def switch_branch(self, turn_id: int) -> None:
        """Uses the branch of this turn, down to its newest end."""

        def job(db: sqlite3.Connection) -> None:
            leaf = turn_id
            newest = "SELECT id FROM turns WHERE parent_id = ? ORDER BY id DESC LIMIT 1"
            while child := db.execute(newest, (leaf,)).fetchone():
                leaf = child[0]
            db.execute("UPDATE chats SET leaf = ? WHERE id = (SELECT chat_id FROM turns WHERE id = ?)", (leaf, leaf))

        self._database.do(job)

    def siblings(self, turn_id: int) -> list[int]:
        """The ids of all turns under the same parent, oldest first."""
        sql = """SELECT s.id FROM turns AS t JOIN turns AS s ON s.chat_id = t.chat_id AND s.parent_id IS t.parent_id
                 WHERE t.id = ? ORDER BY s.id"""
        return self._database.read(lambda db: [row[0] for row in db.execute(sql, (turn_id,))])

    def cut_before(self, turn_id: int, summary: str) -> None:
        """Nothing before this turn is sent to the model any more, but `summary`, where it has a text."""
        self._database.do(lambda db: db.execute("UPDATE turns SET cut = ? WHERE id = ?", (summary, turn_id)))

    def delete_turn(self, turn_id: int, leaf: int | None) -> None:
        """Deletes a turn and all that follows it, and a chat that this leaves empty; `leaf` is in use again."""

        def job(db: sqlite3.Connection) -> None:
            if (found := db.execute("SELECT chat_id FROM turns WHERE id = ?", (turn_id,)).fetchone()) is None:
                return  # with its chat, by another program
            (chat_id,) = found
            db.execute("UPDATE chats SET leaf = ? WHERE id = ?", (leaf, chat_id))
            db.execute("DELETE FROM turns WHERE id = ?", (turn_id,))
            empty = "DELETE FROM chats WHERE id = ? AND NOT EXISTS (SELECT 1 FROM turns WHERE chat_id = chats.id)"
            db.execute(empty, (chat_id,))

        self._database.do(job)

    def search(self, words: str, limit: int = 50) -> list[Hit]:
        """Turns of all chats with all the words somewhere in them; the best matches first."""
        return self._database.read(lambda db: find(db, words, limit))

    def _turn_by_id(self, turn_id: int) -> Turn:
        found = self._database.read(lambda db: _rows(db, _BRANCH, turn_id))
        if not found:
            raise NoSuchChatError(f"that of turn {turn_id}")
        return rows.turn(found[-1])

    def _add(
        self,
        db: sqlite3.Connection,
        chat_id: int,
        parent: int | None,
        role: Role,
        text: str,
        state: State,
        attached: str = "",
    ) -> int:
        if not _rows(db, "SELECT 1 FROM chats WHERE id = ?", chat_id):
            raise NoSuchChatError(chat_id)
        now = time.time()
        owner = self._database.owner if state == "streaming" else None
        sql = """INSERT INTO turns (chat_id, parent_id, role, content, state, created, owner, attached)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
        turn = _insert(db, sql, (chat_id, parent, role, text, state, now, owner, attached))
        db.execute("UPDATE chats SET leaf = ?, updated = ? WHERE id = ?", (turn, now, chat_id))
        return turn


def _rows(db: sqlite3.Connection, sql: str, *values: Any) -> list[dict[str, Any]]:
    cursor = db.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _insert(db: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> int:
    made = db.execute(sql, values).lastrowid
    assert made is not None
    return made
