"""`@path` in a prompt: the text of the file goes with it, and the prompt stays as it was typed."""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from specee.app.errors import USAGE, AppError
from specee.app.text_input import LIMIT, decode, too_large

_REFERENCE = re.compile(r"""(?<!\S)@(?:"([^"\n]+)"|(\S+))""")
_SUFFIX = re.compile(
    r"adoc|bash|bat|bib|c|cc|cfg|conf|cpp|cs|css|csv|diff|docx?|go|gradle|h|hpp|html?|ini|ipynb|java|jpg|jsx?|jsonl?|kt"
    r"|log|lua|md|odt|org|patch|pdf|php|pl|png|proto|ps1|pyi?|rb|rs|rst|rtf|scala|sh|sql|svelte|swift|tex|toml|tsx?|tsv"
    r"|txt|vue|xlsx?|xml|ya?ml",
    re.IGNORECASE,
)
"""Of files. Other words with a dot are decorators and names of people."""


@dataclass(frozen=True)
class Attachment:
    """A file that a prompt names. `block` is how its text stands in the prompt; `doubt` as of a DecodedText."""

    path: Path
    n_bytes: int
    block: str = field(repr=False)
    doubt: str | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.n_bytes} bytes)"


def attach(text: str) -> tuple[str, list[Attachment]]:
    """The text of the files that the prompt names, as it goes behind the prompt, and which files they are, each once.

    An @ before what is neither there nor looks like a file (a name, a decorator) means nothing. Raises AppError for a
    file that is not there, cannot be read or is no text.
    """
    files: dict[Path, Attachment] = {}
    for match in _REFERENCE.finditer(text):
        path = _path(match[1] or match[2], quoted=match[1] is not None)
        if path is not None and path not in files:
            files[path] = _read(path)
    return "".join(file.block for file in files.values()), list(files.values())


def _path(name: str, *, quoted: bool) -> Path | None:
    """What is there under this name, without the punctuation of a sentence behind it; None where it names no file."""
    bare = name if quoted else name.rstrip(".,;:!?)'\"")
    for candidate in dict.fromkeys((name, bare)):
        try:
            path = Path(candidate).expanduser()
            path.stat()
            return path
        except PermissionError:
            return path  # reading it says so
        except (OSError, RuntimeError, ValueError):  # not there, the home of nobody, too long, with a zero in it
            continue
    if quoted or _looks_like_a_file(bare):
        raise AppError(
            "cannot attach", f"there is no file {bare}; with a space after the @ it is sent as it stands", USAGE
        )
    return None


def _looks_like_a_file(name: str) -> bool:
    if "(" in name:  # a call
        return False
    folder, slash, _ = name.partition("/")
    if slash and (folder in ("", ".", "..") or folder.startswith("~") or name.endswith("/") or Path(folder).is_dir()):
        return True
    _, dot, suffix = name.rpartition(".")
    return bool(dot) and _SUFFIX.fullmatch(suffix) is not None


def _read(path: Path) -> Attachment:
    try:
        content = _bytes(path)
    except OSError as error:
        raise AppError("cannot attach", f"{path}: {error.strerror or error}", USAGE) from error
    if len(content) > LIMIT:
        raise too_large(str(path))
    decoded = decode(content, str(path))
    text = decoded.text.rstrip("\n")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    name = os.fsencode(path.name).decode("utf-8", "replace")
    return Attachment(path, len(content), f"\n\n{name}:\n{fence}\n{text}\n{fence}", decoded.doubt)


def _bytes(path: Path) -> bytes:
    """At most one byte more than LIMIT. Nothing waits: what could do so forever (a pipe, a device) is refused."""
    # O_NONBLOCK: some files of /proc say that they are regular, and have more only when something happens
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        what = "a folder; name a file in it" if stat.S_ISDIR(mode) else "no regular file"
        raise AppError("cannot attach", f"{path} is {what}", USAGE)
    with io.FileIO(fd) as file:
        content = bytearray()
        while len(content) <= LIMIT and (piece := file.read(LIMIT + 1 - len(content))) != b"":
            if piece is None:
                raise AppError("cannot attach", f"{path} has no end: it is not a file that can be sent", USAGE)
            content += piece
    return bytes(content)
