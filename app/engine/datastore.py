"""The datastore that drafts are retrieved from: made once for a model's vocabulary from the texts shipped for it."""

from __future__ import annotations

import hashlib
import lzma
import os
import zipfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from specee.predictors.drafters.datastore import Datastore

SEPARATOR = "\f"  # between texts
FORMAT = 1


def draft_texts() -> bytes:
    """Answers of two small models to their own questions, separated by form feeds, as UTF-8."""
    return lzma.decompress((resources.files("specee.predictors") / "data" / "draft_texts.xz").read_bytes())


def open_datastore(tokenize: Callable[[str], Sequence[int]], sha256: str, cache: Path) -> Datastore:
    """That of the model with this hash: from the cache, else built and put there (half a second)."""
    texts = draft_texts()
    version = hashlib.sha256(texts).hexdigest()[:8]
    path = cache / "datastores" / f"{sha256[:16]}-{version}-{FORMAT}.npz"
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return Datastore(stored["keys"], stored["followers"], stored["probs"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # none yet, or a damaged file
    datastore = Datastore.build([tokenize(text) for text in texts.decode().split(SEPARATOR)])
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as out:
            keys, followers, probs = datastore.arrays()
            np.savez(out, keys=keys, followers=followers, probs=probs)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
    return datastore
