"""`@path` in a prompt: the text of the file goes with it, and the prompt stays as it was typed."""

from __future__ import annotations

import re
from pathlib import Path

from specee.app.errors import USAGE, AppError

LIMIT = 1 << 20  # bytes; far beyond any window
_REFERENCE = re.compile(r"""(?<!\S)@(?:"([^"\n]+)"|(\S+))""")


def attach(text: str) -> tuple[str, list[Path]]:
    """The text of the files that the prompt names, as it goes behind the prompt, and which files they are.

    An @ before what is no file (a name, a decorator) means nothing. Raises AppError for a file that is no text.
    """
    files: list[Path] = []
    for match in _REFERENCE.finditer(text):
        path = _file(match[1] or match[2])
        if path is not None and path not in files:
            files.append(path)
    return "".join(_block(path) for path in files), files


def _file(name: str) -> Path | None:
    for candidate in (name, name.rstrip(".,;:!?)")):
        try:
            path = Path(candidate).expanduser()
            if path.is_file():
                return path
        except (OSError, RuntimeError, ValueError):  # too long for a file name, the home of nobody, a zero in it
            return None
    return None


def _block(path: Path) -> str:
    if path.stat().st_size > LIMIT:
        raise AppError("cannot attach", f"{path} is larger than {LIMIT >> 20} MiB", USAGE)
    try:
        content = path.read_text("utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise AppError("cannot attach", f"{path} is not a text file", USAGE) from error
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", content)), default=0))
    return f"\n\n{path.name}:\n{fence}\n{content}\n{fence}"
