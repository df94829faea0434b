"""What the name behind an @ may become, and what the files that a prompt names weigh."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlsplit

from specee.app.chat.file_reference import files_named
from specee.app.errors import AppError
from specee.app.formatting import size

MOST_ENTRIES = 5000  # of a folder that are looked at
MOST_PATHS = 64  # that are dropped at once
BYTES_A_TOKEN = 4  # of English text; other languages, and code, have fewer
_BEGUN = re.compile(r"(?:^|(?<=[\s(\[{<,;]))@(?:\"(?P<quoted>[^\"\n]*)|(?P<word>(?:\\[ ]|[^\s\"'])*))$")
_PLAIN = re.compile(r"[\w./~+-]+")


@dataclass(frozen=True)
class FileChoice:
    """A file or a folder that a name may become. `reference`: what stands in the prompt for it, with the @."""

    reference: str
    name: str
    is_folder: bool
    n_bytes: int = 0

    @property
    def about(self) -> str:
        """Its size, and about how many tokens a text of that size has."""
        return "folder" if self.is_folder else _weight(self.n_bytes)


def begun(before: str) -> tuple[int, str] | None:
    """Where the @ stands that the text before the cursor ends with, and the name behind it as far as it is written."""
    if (found := _BEGUN.search(before[before.rfind("\n") + 1 :])) is None:
        return None
    name = found["quoted"] if found["quoted"] is not None else found["word"].replace("\\ ", " ")
    return before.rfind("\n") + 1 + found.start(), name


def choices(name: str) -> list[FileChoice]:
    """What is there that begins like this, by name; hidden files only if the name begins with a dot. Asks the disk."""
    shown, _, start = name.rpartition("/")
    folder = shown + "/" if "/" in name else ""
    try:
        place = Path(folder or ".").expanduser()
        with os.scandir(place) as entries:
            found = list(islice(entries, MOST_ENTRIES))
    except (OSError, RuntimeError, ValueError):
        return []
    wanted = start.casefold()
    found = [
        entry
        for entry in found
        if entry.name.casefold().startswith(wanted) and entry.name.isprintable()
        if start.startswith(".") or not entry.name.startswith(".")
    ]
    return [_choice(folder, entry) for entry in sorted(found, key=lambda entry: entry.name.casefold())]


def _choice(folder: str, entry: os.DirEntry[str]) -> FileChoice:
    is_folder, n_bytes = False, 0
    with suppress(OSError):
        is_folder = entry.is_dir()
        n_bytes = entry.stat().st_size
    path = folder + entry.name + ("/" if is_folder else "")
    return FileChoice(reference(path, is_open=is_folder), entry.name + ("/" if is_folder else ""), is_folder, n_bytes)


def reference(path: str, *, is_open: bool = False) -> str:
    """What a prompt says for a path; `is_open`: more of the path follows."""
    if _PLAIN.fullmatch(path) and (is_open or path[-1] not in "."):
        return f"@{path}"
    for quote in "\"'":
        if quote not in path and (quote == '"' or not is_open):
            return f"@{quote}{path}{'' if is_open else quote}"
    return "@" + re.sub(r"([^\w./~+-])", r"\\\1", path)


def attached(text: str) -> str:
    """A line about the files that a prompt names so far; empty if none. Asks the disk."""
    parts = []
    with suppress(AppError):  # it is said when the prompt is sent
        for path in dict.fromkeys(files_named(text)):
            with suppress(OSError):
                if path.is_file():
                    parts.append(f"{path.name} ({_weight(path.stat().st_size)})")
    return f"attached: {', '.join(parts)}" if parts else ""


def _weight(n_bytes: int) -> str:
    shown = size(n_bytes) if n_bytes >= 1000 else f"{n_bytes} bytes"
    return f"{shown}, about {-(-n_bytes // BYTES_A_TOKEN):,} tokens"


def dropped(pasted: str) -> str:
    """What the prompt says for files that were dropped on the terminal, which pastes their paths; empty where the
    pasted text is anything else. Asks the disk."""
    text = pasted.strip()
    if not text.startswith(("/", "~/", "'/", '"/', "file://")) and not re.match(r"[\"']?[A-Za-z]:\\", text):
        return ""
    for paths in _paths(text):
        with suppress(OSError, RuntimeError, ValueError):
            if paths and all(Path(path).expanduser().is_file() for path in paths):
                return " ".join(map(reference, paths)) + " "
    return ""


def _paths(text: str) -> Iterator[Sequence[str]]:
    """The ways to read a text as paths: as one, one a line, and as a shell reads it."""
    if len(text) > MOST_PATHS * 4096:
        return
    lines = [_of_address(line.strip()) for line in text.splitlines()]
    yield lines[:MOST_PATHS]
    with suppress(ValueError):
        words = [_of_address(word) for word in shlex.split(text)]
        if len(words) <= MOST_PATHS and all(Path(word).is_absolute() or word.startswith("~") for word in words):
            yield words


def _of_address(text: str) -> str:
    if not text.startswith("file://"):
        return text
    try:
        return unquote(urlsplit(text).path)
    except ValueError:
        return text
