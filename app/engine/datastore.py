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
from specee.predictors.drafters.datastore import Datastore

Tokenize = Callable[[str], Sequence[int]]
SEPARATOR = "\f"  # between texts
FORMAT = 1
RETRIEVAL, HISTORY = "retrieval", "history"
"""The names of the drafters: of the program's texts, and of the user's earlier chats."""


def open_datastores(tokenize: Tokenize, sha256: str, where: Paths) -> dict[str, Datastore]:
    """For the model with this hash, by the name of the drafter. That of earlier chats is in memory only."""
    try:
        found = {RETRIEVAL: open_datastore(tokenize, sha256, where.cache)}
        if answers := recent_answers(where.history):
            found[HISTORY] = Datastore.build([tokenize(text) for text in answers])
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
