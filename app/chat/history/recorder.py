"""Writes one answer while it grows."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, replace

from specee.app.chat.history.database import Database
from specee.app.chat.history.records import State, StoredToken, Turn, drafted, pack
from specee.app.engine.protocol import Channel, ChatEvent, Stats

WRITE_SECONDS = 0.1
_GROWING = "content = ?, thought = ?, thought_seconds = ?, depths = ?"


class Recorder:
    """Takes an answer's events at full speed; a thread of its own writes them, so that a pause loses nothing either.

    A write that fails stops no answer: `finish` raises it.
    """

    def __init__(self, database: Database, turn: Turn) -> None:
        self.turn = turn
        self._database = database
        self._lock = threading.Lock()
        self._pieces: dict[Channel, list[str]] = {"thought": [turn.thought], "answer": [turn.content]}
        self._seconds = turn.thought_seconds
        self._thought_at: float | None = None  # when the last token of its thought came
        self._tokens = list(turn.tokens)
        self._first = len(self._tokens)  # a continued answer counts its tokens from 0 again
        self._changed = False
        self._finished = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    @property
    def has_grown(self) -> bool:
        """Whether there is more of it than at the beginning."""
        with self._lock:
            answer, thought = ("".join(self._pieces[channel]) for channel in ("answer", "thought"))
        return (answer, thought) != (self.turn.content, self.turn.thought)

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    def add(self, event: ChatEvent) -> None:
        """One more event; only verified ones count."""
        if event.state != "verified":
            return
        with self._lock:
            self._changed = True
            self._pieces[event.channel].append(event.text)
            if event.channel == "thought":
                self._seconds += event.t - (event.t if self._thought_at is None else self._thought_at)
                self._thought_at = event.t
            if event.stop:
                return
            index = self._first + event.index
            if index < len(self._tokens):  # the rest of a character of a token that is here already
                known = self._tokens[index]
                self._tokens[index] = replace(known, characters=known.characters + len(event.text))
            else:
                self._tokens.append(StoredToken(event.exit_layer, len(event.text), event.drafter))

    def finish(self, state: State, stats: Stats | None = None) -> None:
        """Writes the rest and the figures. Raises AppError."""
        self._finished.set()
        self._ticker.join()
        snapshot = self._snapshot()
        figures = None if stats is None else json.dumps({**asdict(stats), "drafted": drafted(self._tokens)})
        self._database.do(
            lambda db: db.execute(
                f"UPDATE turns SET {_GROWING}, state = ?, owner = NULL, stats = coalesce(?, stats) WHERE id = ?",
                (*snapshot, state, figures, self.turn.id),
            )
        )

    def _snapshot(self) -> tuple[str, str, float, bytes]:
        """The values of _GROWING."""
        with self._lock:
            self._changed = False
            for channel, pieces in self._pieces.items():
                self._pieces[channel] = ["".join(pieces)]
            return self._pieces["answer"][0], self._pieces["thought"][0], self._seconds, pack(self._tokens)

    def _tick(self) -> None:
        while not self._finished.wait(WRITE_SECONDS):
            if not self._changed:
                continue
            snapshot = self._snapshot()
            try:
                self._database.do(
                    lambda db, snapshot=snapshot: db.execute(  # type: ignore[misc]
                        f"UPDATE turns SET {_GROWING} WHERE id = ?", (*snapshot, self.turn.id)
                    )
                )
            except Exception:
                time.sleep(WRITE_SECONDS)  # a full disk: `finish` tries again, and raises
