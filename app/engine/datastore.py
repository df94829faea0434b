"""The datastores that drafts are retrieved from: texts that come with the program, and the user's earlier chats."""

from __future__ import annotations

import hashlib
import lzma
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path

import numpy as np

from specee.app.chat.history.recent import recent_answers
from specee.app.paths import Paths
from specee.models import local_file
from specee.native.errors import NativeError
from specee.predictors.drafters.datastore import Datastore, Lookup

Tokenize = Callable[[str], Sequence[int]]
SEPARATOR = "\f"  # between texts
FORMAT = 1
RETRIEVAL, HISTORY = "retrieval", "history"
"""The names of the drafters: of the program's texts, and of the user's earlier chats."""


class EarlierChats:
    """The newest answers of the user's chats, in memory only, as they are in the history when it was last read."""

    def __init__(self, tokenize: Tokenize, history: Path) -> None:
        self._tokenize, self._history = tokenize, history
        self._texts: dict[str, Sequence[int]] = {}  # as tokens
        self._answers: list[str] = []
        self._datastore = Datastore.build([])
        self.read()

    def read(self) -> None:
        """Again, when a chat begins: what was answered since then drafts, and what was deleted does not any more."""
        answers = recent_answers(self._history)
        if answers == self._answers:
            return
        self._texts = {text: self._texts.get(text) or self._tokenize(text) for text in answers}
        self._datastore = Datastore.build([self._texts[text] for text in answers])
        self._answers = answers

    def guess(self, context: Sequence[int]) -> tuple[int, int, float] | None:
        """As Datastore's."""
        return self._datastore.guess(context)


def open_datastores(tokenize: Tokenize, sha256: str, where: Paths, *, chats: bool) -> dict[str, Lookup]:
    """For the model with this hash, by the name of the drafter. `chats`: the user's earlier ones, too."""
    try:
        found: dict[str, Lookup] = {RETRIEVAL: open_datastore(tokenize, sha256, where.cache)}
        if chats:
            found[HISTORY] = EarlierChats(tokenize, where.history)
    except NativeError:  # a vocabulary that has no tokens for plain text
        return {}
    return found


def draft_texts() -> bytes:
    """Answers of two small models to their own questions, separated by form feeds, as UTF-8."""
    return lzma.decompress((resources.files("specee.predictors") / "data" / "draft_texts.xz").read_bytes())


def open_datastore(tokenize: Tokenize, sha256: str, cache: Path) -> Datastore:
    """That of the model with this hash: from the cache, else built and put there (half a second)."""
    texts = draft_texts()
    version = hashlib.sha256(texts).hexdigest()[:8]
    path = cache / "datastores" / f"{sha256[:16]}-{version}-{FORMAT}.npz"
    try:
        with os.fdopen(local_file.open_to_read(path), "rb") as file, np.load(file) as stored:
            return Datastore(stored["keys"], stored["followers"], stored["probs"])
    except Exception:  # none yet, or a file that is damaged in any way
        pass
    datastore = Datastore.build([tokenize(text) for text in texts.decode().split(SEPARATOR)])
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        local_file.make_folder(path.parent)
        with part.open("wb") as out:
            keys, followers, probs = datastore.arrays()
            np.savez(out, keys=keys, followers=followers, probs=probs)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
    return datastore
